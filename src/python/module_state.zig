//! What all clients share: the types of the module, and a calibrated clock.

const std = @import("std");
const assert = std.debug.assert;
const core = @import("core");
const c = @import("py.zig").c;

const Clock = core.clock.ClockType(core.os.Os);

/// Set when the module is imported, and constant from then on.
pub const ModuleState = struct {
    /// The types are owned, and never freed.
    client_type: *c.PyTypeObject,
    loop_type: *c.PyTypeObject,
    message_type: *c.PyTypeObject,
    reservation_type: *c.PyTypeObject,
    /// Its first anchor is taken when the module is imported. The clock of each client begins as a
    /// copy, so that its first connect usually does not have to wait for the calibration.
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

/// A process has one interpreter with this module: sub-interpreters are refused (module.zig). An
/// import in another thread waits for the first one, by Python's import lock. A second import gets
/// the same types.
var state: ?ModuleState = null;
