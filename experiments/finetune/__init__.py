"""From labeled images to a model, with settings that fit them: `python -m experiments.finetune`."""
