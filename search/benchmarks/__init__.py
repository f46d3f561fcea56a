"""Strategies and estimators on tables whose answers are known."""
