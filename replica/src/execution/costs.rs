//! Every cost and limit of execution, in one place.
