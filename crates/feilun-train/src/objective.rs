//! Objectives: functions from the log-probabilities of tokens to the loss and its derivatives.
