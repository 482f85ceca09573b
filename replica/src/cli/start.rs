//! `replica start`: a network on a port, and the PocketIC server.
