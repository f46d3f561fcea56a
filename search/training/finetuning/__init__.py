"""Quantisation-aware fine-tuning: a trained network is trained on with its int8 form's rounding."""
