//! Guards: what must stop a run, before it starts or in the middle.
