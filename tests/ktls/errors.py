"""The exception of a rig that does not work."""

__all__ = ["RigError"]


class RigError(Exception):
    """The rig itself does not work, and why. Then tests fail."""
