//! Examples in files, rendered to tokens, packed into rows, in a seeded order.
