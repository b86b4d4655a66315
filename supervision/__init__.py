"""A supervised pool on this machine: supervisord, its configuration, its watchdog, and pools of one's own."""
