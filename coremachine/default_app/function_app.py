"""What Azure Functions loads: the functions of CoreMachine, with the settings of this app."""

from coremachine.app import app

__all__ = ["app"]
