//! What outlives every client: the types of the module, and a clock.

const std = @import("std");
const assert = std.debug.assert;
const core = @import("core");
const c = @import("py.zig").c;

const Clock = core.clock.ClockType(core.os.Os);

/// Set when the module is imported, and constant from then on.
pub const ModuleState = struct {
    /// The types are owned, and never given back.
    client_type: *c.PyTypeObject,
    message_type: *c.PyTypeObject,
    reservation_type: *c.PyTypeObject,
    /// Anchored when the module was imported. A client's clock begins as a copy, so that by its
    /// first connect the base line is long enough as a rule, and nobody waits for it.
    clock: Clock,

    pub fn get() *const ModuleState {
        return &state.?; // The caller is a function of the module, or of one of its types.
    }

    pub fn isSet() bool {
        return state != null;
    }

    pub fn set(value: ModuleState) void {
        assert(state == null);
        state = value;
    }
};

/// One interpreter, one module: sub-interpreters are refused (module.zig). An import in another
/// thread waits for the first one, by Python's own lock. A second import gets the same types.
var state: ?ModuleState = null;
