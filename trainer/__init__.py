"""The trainer runs attempts of training jobs. It uses the bus; its child `python -m trainer.engine` trains."""
