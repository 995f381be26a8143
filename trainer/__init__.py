"""The trainer: attempts at jobs. The parent speaks to the bus, the child (`python -m trainer.engine`) trains."""
