"""Top-1 on ImageNet after a full schedule, fitted on published networks."""
