"""The broker at scale: the real one, between fake peers that speak its protocol and do no work."""
