"""One step of training, as pure functions of a state and a batch."""
