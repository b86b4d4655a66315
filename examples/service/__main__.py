"""The service as a program: `python -m examples.service`."""

import sys

import structlog
import uvicorn
from pydantic import ValidationError

from examples.service.app import create_app
from examples.service.settings import ServiceSettings

BAD_SETTINGS = 78


def main() -> int:
    """Serves until SIGTERM or Ctrl-C; returns the exit code."""
    if not sys.stdout.isatty():
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ]
        )
    try:
        settings = ServiceSettings()
    except ValidationError as error:
        for details in error.errors():
            name = "_".join(["SERVICE", *map(str, details["loc"])]).upper()
            sys.stderr.write(f"service: {name}={details['input']}: {details['msg']}\n")
        return BAD_SETTINGS
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, access_log=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
