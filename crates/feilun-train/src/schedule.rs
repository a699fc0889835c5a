//! Schedules: the learning rate of a step.
