//! The interface of a sink, which takes the messages of a connection.
//!
//! Python's callback is a sink. A C function or a recorder could be others. `pump` is compiled for
//! each type of sink, so that a message costs no indirect call.
//!
//!     pub const delivers: bool
//!     pub fn prepare(sink: *Sink) Error!void
//!     pub fn take(sink: *Sink, delivery: *const Delivery) Error!void
//!
//! `delivers` is false for a sink that drops the messages: then they get no delivery stamp, and
//! their latency is not recorded. `prepare` is called before that stamp and does what may take
//! time, such as allocating an object. `take` gets the message; its bytes are borrowed until it
//! returns, unless it pins them in `delivery.ring`. When `prepare` or `take` fails, the message is
//! lost to the sink: the next `pump` goes on after it.

const std = @import("std");
const Delivery = @import("delivery.zig").Delivery;

/// The errors of `prepare` and `take`. A compile error if `Sink` does not have the interface.
pub fn ErrorOf(comptime Sink: type) type {
    const delivers: bool = Sink.delivers;
    _ = delivers;
    return ErrorSet(Sink, "prepare", &.{*Sink}) || ErrorSet(Sink, "take", &.{
        *Sink, *const Delivery,
    });
}

fn ErrorSet(
    comptime Sink: type,
    comptime name: []const u8,
    comptime parameters: []const type,
) type {
    const function = @typeInfo(@TypeOf(@field(Sink, name))).@"fn";
    const problem = @typeName(Sink) ++ "." ++ name ++ " is not what sink.zig asks for";
    if (function.param_types.len != parameters.len) @compileError(problem);
    for (function.param_types, parameters) |found, expected| {
        if (found != expected) @compileError(problem);
    }
    const result = @typeInfo(function.return_type.?).error_union;
    if (result.payload != void) @compileError(problem);
    return result.error_set;
}

test {
    _ = @import("sink_test.zig");
}
