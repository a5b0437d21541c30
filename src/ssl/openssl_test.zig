//! Tests of the openssl engine.
