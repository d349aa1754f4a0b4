"""Training: options, models, Trainer, schedule, augmentation and checkpoints."""
