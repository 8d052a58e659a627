"""Evaluation: figures of merit, what they are made of, and the command that measures a model."""
