"""The models on tables that others published, beside their baselines."""
