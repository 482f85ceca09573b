//! Tests of the whole canister on the fake system.
