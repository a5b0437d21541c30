//! Who takes the messages of a connection: what `Connection.pump` asks of a sink.
//!
//! Python's callback is a sink. A C function, columns, a recorder or an arbiter are others. `pump`
//! is compiled for each kind, so that choosing one costs no indirect call per message.
//!
//!     pub const delivers: bool
//!     pub fn prepare(sink: *Sink) Error!void
//!     pub fn take(sink: *Sink, delivery: *const Delivery) Error!void
//!
//! `delivers` says whether somebody gets the messages: they are stamped as delivered then, and
//! their latency is recorded. `prepare` comes before that stamp and does what may take time, such
//! as to allocate an object. `take` gets the message; its bytes are borrowed until it returns,
//! unless it pins them in `delivery.ring`. A message whose `prepare` fails is lost to the sink:
//! the next `pump` goes on behind it, as it does when `take` fails.

const std = @import("std");
const Delivery = @import("delivery.zig").Delivery;

/// What `prepare` and `take` may fail with. Does not compile for what is no sink.
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
