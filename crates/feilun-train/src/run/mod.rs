//! The run: the loop over steps, its directory and its checkpoints.
