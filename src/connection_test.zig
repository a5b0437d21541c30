//! Tests of `connection.zig` on a scripted kernel.
