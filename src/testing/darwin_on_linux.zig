//! A platform for tests: os/darwin.zig on Linux, over stand-ins for macOS.
//!
//! Notifier, memory, clock and tuning are those of os/darwin.zig; the stand-ins for the calls of
//! macOS's kernel are `kqueue_shim.zig` and `mach_shim.zig`.
//!
//! The build makes it a module of its own. The core's tests import it; with `-Dkqueue-shim` it is
//! the platform of the whole extension, so that the client's tests run on kqueue without a Mac.

const os = @import("core").os;
const darwin = os.darwin;
const linux = os.linux;

pub const kqueue_shim = @import("kqueue_shim.zig");
pub const mach_shim = @import("mach_shim.zig");

comptime {
    // os/darwin.zig calls the functions that they export.
    _ = kqueue_shim;
    _ = mach_shim;
}

pub const Descriptor = linux.Descriptor;
pub const Address = linux.Address;
pub const AddressList = linux.AddressList;
pub const KernelStamp = linux.KernelStamp;
pub const TimestampMode = linux.TimestampMode;
pub const SocketOptions = linux.SocketOptions;
pub const TlsDirection = linux.TlsDirection;
pub const ReceivedRecord = linux.ReceivedRecord;
pub const Mapping = linux.Mapping;
pub const PeerProgress = linux.PeerProgress;
pub const MapOptions = linux.MapOptions;

pub const resolve = linux.resolve;
pub const resolveLiteral = linux.resolveLiteral;
pub const startThread = linux.startThread;
pub const socketPair = linux.socketPair;
pub const openSocket = linux.openSocket;
pub const connect = linux.connect;
pub const connectResult = linux.connectResult;
pub const bind = linux.bind;
pub const bindToInterface = linux.bindToInterface;
pub const receive = linux.receive;
pub const send = linux.send;
pub const shutdownSend = linux.shutdownSend;
pub const close = linux.close;
pub const setNoDelay = linux.setNoDelay;
pub const setPeerTimeout = linux.setPeerTimeout;
pub const peerProgress = darwin.peerProgress;
pub const liftUnansweredLimit = darwin.liftUnansweredLimit;
pub const setQuickAck = linux.setQuickAck;
pub const setBusyPoll = linux.setBusyPoll;
pub const setReceiveBufferSize = linux.setReceiveBufferSize;
pub const setSendBufferSize = linux.setSendBufferSize;
pub const enableReceiveStamps = linux.enableReceiveStamps;
pub const socketOptions = linux.socketOptions;
pub const localAddress = linux.localAddress;
pub const peerAddress = linux.peerAddress;
pub const random = linux.random;

pub const attachTls = darwin.attachTls;
pub const setTlsKeys = darwin.setTlsKeys;
pub const receiveRecord = darwin.receiveRecord;
pub const sendRecord = darwin.sendRecord;
pub const cycles = darwin.cycles;
pub const counterFrequency = darwin.counterFrequency;
pub const monotonicNs = darwin.monotonicNs;
pub const realtimeNs = darwin.realtimeNs;
pub const mapMirrored = darwin.mapMirrored;
pub const unmapMirrored = darwin.unmapMirrored;
pub const pinThread = darwin.pinThread;
pub const setRealtimePriority = darwin.setRealtimePriority;
pub const lockMemory = darwin.lockMemory;

pub const KernelEvent = darwin.KernelEvent;
pub const kqueue_timeout_ns_max = darwin.kqueue_timeout_ns_max;
pub const kqueueCreate = darwin.kqueueCreate;
pub const kqueueChange = darwin.kqueueChange;
pub const kqueueWait = darwin.kqueueWait;
