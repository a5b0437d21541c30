//! The build graph. `build` reads every option, makes every artifact, and last adds the steps that
//! a user can ask for; below it, in the same order, is how each is made.
//!
//! Facts about the Python interpreter come in as `-D` options (see `hatch_build.py`): Zig caches
//! the configuration by the options, so a fact from the environment would go stale. A build by hand
//! leaves them out; then the `python3` on the path is asked at every run.

const std = @import("std");

/// What `zig build check` type checks, on whatever machine.
const supported_targets = [_][]const u8{
    "x86_64-linux-gnu",
    "aarch64-linux-gnu",
    "x86_64-linux-musl",
    "aarch64-linux-musl",
    "x86_64-macos.12.0",
    "aarch64-macos.12.0",
};

pub fn build(b: *std.Build) void {
    const config: Config = .read(b);

    const extension = addExtension(b, &config);
    const core_test = addCoreTest(b, &config);
    const replay = addReplay(b, &config);
    const fuzzer = addFuzzer(b, &config);

    addInstallSteps(b, &config, extension);

    const test_step = b.step("test", "Run the tests of the core");
    test_step.dependOn(&b.addRunArtifact(core_test).step);
    if (config.tests.filters.len == 0) test_step.dependOn(&replay.step);

    const replay_step = b.step("replay", "Give every fuzz target its corpus; a part of `test`");
    replay_step.dependOn(&replay.step);

    const fuzz_step = b.step("fuzz", "Build the fuzz targets as one program, build/fuzz/targets");
    fuzz_step.dependOn(&b.addInstallArtifact(fuzzer, .{
        .dest_dir = .{ .override = .prefix },
    }).step);

    // For tools that run a program themselves, such as valgrind.
    const install_test_step = b.step("install-test", "Put the tests of the core into the prefix");
    install_test_step.dependOn(&b.addInstallArtifact(core_test, .{
        .dest_dir = .{ .override = .prefix },
        .dest_sub_path = "core-test",
    }).step);

    addCheckStep(b, &config);
}

/// Every `-D` option.
const Config = struct {
    target: std.Build.ResolvedTarget,
    optimize: std.lang.Optimize,
    core: CoreOptions,
    python: PythonOptions,
    tests: TestOptions,

    fn read(b: *std.Build) Config {
        return .{
            // Zig's own default is this machine's CPU. Then the tests would run other code on each
            // machine, and not a wheel's, and crash where a hypervisor announces only half of
            // what it has.
            .target = b.standardTargetOptions(.{ .default_target = .{ .cpu_model = .baseline } }),
            .optimize = b.option(
                std.lang.Optimize,
                "optimize",
                "fast (default), safe (assertions on), small or debug",
            ) orelse .fast,
            .core = .read(b),
            .python = .read(b),
            .tests = .read(b),
        };
    }
};

/// How libssl and libcrypto are found.
const Openssl = enum { lookup, link };

const CoreOptions = struct {
    ipsec_mb: ?[]const u8 = null,
    openssl: Openssl = .lookup,
    valgrind: bool = false,
    kqueue_shim: bool = false,

    fn read(b: *std.Build) CoreOptions {
        return .{
            .ipsec_mb = b.option(
                []const u8,
                "ipsec-mb",
                "Archive to link in: libIPSec_MB.a, version 1.3 to 2.0 (default: looked for at " ++
                    "run time)",
            ),
            .openssl = b.option(
                Openssl,
                "openssl",
                "lookup: libssl is found at run time (default); link: it is a dependency, as " ++
                    "packages have",
            ) orelse .lookup,
            .valgrind = b.option(
                bool,
                "valgrind",
                "Tell valgrind's memcheck which bytes of a ring hold something (default: no)",
            ) orelse false,
            .kqueue_shim = b.option(
                bool,
                "kqueue-shim",
                "On Linux, for tests: macOS's notifier and memory, on stand-ins for a Mac " ++
                    "(default: no)",
            ) orelse false,
        };
    }
};

const PythonOptions = struct {
    interpreter: []const u8,
    /// Whether it was asked for its facts, which a caller such as `hatch_build.py` knows already.
    asked: bool,
    /// The folder of its Python.h.
    include: []const u8,
    module_file: []const u8,
    in_place: bool,

    fn read(b: *std.Build) PythonOptions {
        const python = b.option(
            []const u8,
            "python",
            "The interpreter to build for (default: python3 on the path)",
        ) orelse "python3";
        const include = b.option(
            []const u8,
            "python-include",
            "Directory that holds Python.h (default: asks the interpreter)",
        );
        const module_file = b.option(
            []const u8,
            "module-file",
            "File name of the extension module (default: asks the interpreter)",
        );
        return .{
            .interpreter = python,
            .asked = include == null or module_file == null,
            .include = include orelse askPython(b, python, "sysconfig.get_path('include')"),
            .module_file = module_file orelse
                askPython(b, python, "'_core' + sysconfig.get_config_var('EXT_SUFFIX')"),
            .in_place = b.option(
                bool,
                "in-place",
                "Also put the module into hftws/, so that the checkout can be imported " ++
                    "(default: yes)",
            ) orelse true,
        };
    }
};

const TestOptions = struct {
    fault_seeds: u32,
    emulated: bool,
    filters: []const []const u8,
    thread_sanitizer: bool,
    libfuzzer: []const []const u8,

    fn read(b: *std.Build) TestOptions {
        return .{
            .fault_seeds = b.option(
                u32,
                "fault-seeds",
                "How many seeds the tests of a failing kernel take; the default is what CI has " ++
                    "time for",
            ) orelse 5_000,
            .emulated = b.option(
                bool,
                "emulated",
                "For tests under qemu-user: leave out what it does not hand to the kernel " ++
                    "(default: no)",
            ) orelse false,
            .filters = b.option(
                []const []const u8,
                "test-filter",
                "Run only the Zig tests whose name contains this",
            ) orelse &.{},
            .thread_sanitizer = b.option(
                bool,
                "thread-sanitizer",
                "Run the tests of the core under ThreadSanitizer (default: no)",
            ) orelse false,
            .libfuzzer = b.option(
                []const []const u8,
                "libfuzzer",
                "For `fuzz`: libFuzzer.a and the C++ library that it needs (`make fuzz` finds " ++
                    "them)",
            ) orelse &.{},
        };
    }
};

fn askPython(b: *std.Build, python: []const u8, expression: []const u8) []const u8 {
    b.graph.poisonCache(); // Else the answer of the first run would stick.
    const code = b.fmt("import sysconfig; print({s})", .{expression});
    return std.mem.trimEnd(u8, b.run(&.{ python, "-c", code }), "\r\n");
}

/// The Python that runs ziglang is not known here: the one that is built for may be another.
fn announcePython(b: *std.Build, python: []const u8) *std.Build.Step.Run {
    const announce = b.addSystemCommand(&.{
        python, "-c",
        \\import platform, sys
        \\print(
        \\    f"builds for {platform.python_implementation()} {platform.python_version()}, "
        \\    f"{sys.executable}; for another: -Dpython=/path/to/python3",
        \\    file=sys.stderr,
        \\)
    });
    announce.stdio = .inherit;
    return announce;
}

fn addExtension(b: *std.Build, config: *const Config) *std.Build.Step.Compile {
    const extension = b.addLibrary(.{
        .name = "core",
        .linkage = .dynamic,
        .root_module = extensionModule(
            b,
            config.target,
            config.optimize,
            config.core,
            config.python.include,
        ),
    });
    extension.linker_allow_shlib_undefined = true; // The process has CPython's own symbols.
    if (config.core.ipsec_mb != null) {
        // Else the archive's functions are exported, and another library's may take their place.
        const files = b.addWriteFiles();
        extension.version_script = files.add("exports.map", "{ global: PyInit__core; local: *; };");
        extension.step.dependOn(&files.step); // Zig 0.17 does not see it in the script's path.
    }
    return extension;
}

/// The tests of the core need no interpreter. `safe` keeps the assertions and is quick enough for
/// tests over random input.
fn addCoreTest(b: *std.Build, config: *const Config) *std.Build.Step.Compile {
    const core_test = b.addTest(.{
        .root_module = testModule(b, config.target, .safe, config.core, config.tests),
        .filters = config.tests.filters,
        .use_llvm = if (config.tests.thread_sanitizer) true else null,
    });
    core_test.root_module.sanitize_thread = config.tests.thread_sanitizer;
    return core_test;
}

/// The targets of the fuzzer, over the corpus. Zig does not know that its files are input, so this
/// runs whether or not anything was compiled.
fn addReplay(b: *std.Build, config: *const Config) *std.Build.Step.Run {
    const fuzz_test = b.addTest(.{
        .name = "fuzz",
        .root_module = fuzzModule(b, config.target, .debug, false),
        .filters = &.{ "fuzz corpus:", "fuzz input:", "fuzz guard:" },
    });
    const replay = b.addRunArtifact(fuzz_test);
    replay.has_side_effects = true;
    return replay;
}

fn addFuzzer(b: *std.Build, config: *const Config) *std.Build.Step.Compile {
    return b.addExecutable(.{
        .name = "targets",
        .root_module = fuzzerModule(b, config.target, config.tests.libfuzzer),
        .use_llvm = true,
        .use_lld = true,
    });
}

/// The extension into the prefix, and into the checkout.
fn addInstallSteps(
    b: *std.Build,
    config: *const Config,
    extension: *std.Build.Step.Compile,
) void {
    const module_file = config.python.module_file;
    const announce_step = b.step("python", "Say for which Python the extension is built");
    if (config.python.asked) {
        const announce = announcePython(b, config.python.interpreter);
        announce_step.dependOn(&announce.step);
        b.getInstallStep().dependOn(&announce.step);
    }
    const install = b.addInstallArtifact(extension, .{
        .dest_dir = .{ .override = .prefix },
        .dest_sub_path = module_file,
        .dylib_symlinks = false,
    });
    b.getInstallStep().dependOn(&install.step);
    if (config.python.in_place) {
        const update = b.addUpdateSourceFiles();
        const path = b.pathJoin(&.{ "hftws", module_file });
        update.addCopyFileToSource(extension.getEmittedBin(), path);
        b.getInstallStep().dependOn(&update.step);
    }
}

/// A declaration that nothing on this system uses is not even type checked. This step analyses the
/// core, its tests and the binding for every supported system, without generating code or linking.
/// Python's headers are those of this machine: they differ in what is not used here.
fn addCheckStep(b: *std.Build, config: *const Config) void {
    const check_step = b.step("check", "Type check core and binding for every supported system");
    for (supported_targets) |triple| {
        const query = std.Target.Query.parse(.{ .arch_os_abi = triple }) catch unreachable;
        const other = b.resolveTargetQuery(query);
        const check_core = b.addTest(.{
            .root_module = testModule(b, other, .debug, .{}, config.tests),
        });
        check_step.dependOn(&check_core.step);
        const check_extension = b.addLibrary(.{
            .name = "core",
            .linkage = .dynamic,
            .root_module = extensionModule(b, other, .debug, .{}, config.python.include),
        });
        check_step.dependOn(&check_extension.step);
    }
}

/// The core: Zig and libc. It knows nothing of Python, and finds OpenSSL when it runs, unless that
/// is to be linked; and libipsec-mb too, unless its archive is given.
fn coreModule(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.lang.Optimize,
    core_options: CoreOptions,
) *std.Build.Module {
    const module = b.createModule(.{
        .root_source_file = b.path("src/core.zig"),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
        .valgrind = core_options.valgrind,
        .imports = &.{.{ .name = "build_options", .module = buildOptions(b, core_options) }},
    });
    if (core_options.ipsec_mb) |archive| module.addObjectFile(.{ .cwd_relative = archive });
    if (core_options.openssl == .link) {
        for ([_][]const u8{ "ssl", "crypto" }) |name| module.linkSystemLibrary(name, .{});
    }
    if (core_options.kqueue_shim) module.addImport("platform_override", darwinOnLinux(b, module));
    return module;
}

/// The options that the core sees.
fn buildOptions(b: *std.Build, core_options: CoreOptions) *std.Build.Module {
    const options = b.addOptions();
    options.addOption(bool, "ipsec_mb_linked", core_options.ipsec_mb != null);
    options.addOption(bool, "openssl_linked", core_options.openssl == .link);
    options.addOption(bool, "platform_override", core_options.kqueue_shim);
    return options.createModule();
}

/// macOS's platform on stand-ins for its kernel, for tests on Linux: see the file. A module of its
/// own, so that the core's product files need not import anything of src/testing/.
fn darwinOnLinux(b: *std.Build, core: *std.Build.Module) *std.Build.Module {
    return b.createModule(.{
        .root_source_file = b.path("src/testing/darwin_on_linux.zig"),
        .target = core.resolved_target,
        .optimize = core.optimize,
        .link_libc = true,
        .valgrind = core.valgrind,
        .imports = &.{.{ .name = "core", .module = core }},
    });
}

/// The core with its tests.
fn testModule(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.lang.Optimize,
    core_options: CoreOptions,
    test_options: TestOptions,
) *std.Build.Module {
    const module = coreModule(b, target, optimize, core_options);
    const options = b.addOptions();
    options.addOption(u32, "fault_seeds", test_options.fault_seeds);
    options.addOption(bool, "emulated", test_options.emulated);
    module.addOptions("test_options", options);
    const override = module.import_table.get("platform_override");
    module.addImport("darwin_on_linux", override orelse darwinOnLinux(b, module));
    if (target.result.os.tag == .macos) {
        // Zig brings Apple's headers along: what the core declares by itself is held against them.
        const darwin_h = b.addTranslateC(.{
            .root_source_file = b.path("src/c/darwin.h"),
            .target = target,
            .optimize = optimize,
        });
        module.addImport("darwin_headers", darwin_h.createModule());
    }
    return module;
}

/// The binding: the only module that sees Python.h.
fn extensionModule(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.lang.Optimize,
    core_options: CoreOptions,
    python_include: []const u8,
) *std.Build.Module {
    const python_h = b.addTranslateC(.{
        .root_source_file = b.path("src/c/python.h"),
        .target = target,
        .optimize = optimize,
    });
    python_h.addIncludePath(.{ .cwd_relative = python_include });
    return b.createModule(.{
        .root_source_file = b.path("src/python/module.zig"),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
        .strip = optimize == .fast or optimize == .small,
        .valgrind = core_options.valgrind,
        .imports = &.{
            .{ .name = "core", .module = coreModule(b, target, optimize, core_options) },
            .{ .name = "python", .module = python_h.createModule() },
        },
    });
}

/// The fuzz targets and the core under them, as one module: Zig then counts edges in both.
fn fuzzModule(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.lang.Optimize,
    counts_edges: bool,
) *std.Build.Module {
    return b.createModule(.{
        .root_source_file = b.path("src/fuzz.zig"),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
        .fuzz = counts_edges,
        .imports = &.{.{ .name = "build_options", .module = buildOptions(b, .{}) }},
    });
}

/// The program around them: `main` is libFuzzer's. The targets are an object of their own, because
/// Zig would link its own fuzzer into a program that has counters.
fn fuzzerModule(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    libfuzzer: []const []const u8,
) *std.Build.Module {
    const targets = b.addObject(.{
        .name = "targets",
        .root_module = fuzzModule(b, target, .safe, true),
        .use_llvm = true,
    });
    const module = b.createModule(.{
        .root_source_file = null,
        .target = target,
        .optimize = .safe,
        .link_libc = true,
    });
    module.addObject(targets);
    for (libfuzzer) |file| module.addObjectFile(.{ .cwd_relative = file });
    return module;
}
