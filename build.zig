//! Build graph: options, modules, artifacts, and last the steps a user can ask for.
//!
//! Facts about the Python interpreter come in as `-D` options (see `hatch_build.py`): Zig caches
//! the configuration and keys it by the options, so a fact from the environment would go stale. A
//! build by hand leaves them out, and then the `python3` on the path is asked at every run.

const std = @import("std");

/// Everything that the core has to be type checked for, whatever the machine that builds it.
const supported_targets = [_][]const u8{
    "x86_64-linux-gnu",
    "aarch64-linux-gnu",
    "x86_64-macos.12.0",
    "aarch64-macos.12.0",
};

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{});
    const optimize = b.option(
        std.lang.Optimize,
        "optimize",
        "fast (default), safe (assertions on), small or debug",
    ) orelse .fast;
    const python = b.option(
        []const u8,
        "python",
        "The interpreter to build for (default: python3 on the path)",
    ) orelse "python3";
    const python_include = b.option(
        []const u8,
        "python-include",
        "Directory that holds Python.h (default: asks the interpreter)",
    ) orelse askPython(b, python, "sysconfig.get_path('include')");
    const module_file = b.option(
        []const u8,
        "module-file",
        "File name of the extension module (default: asks the interpreter)",
    ) orelse askPython(b, python, "'_core' + sysconfig.get_config_var('EXT_SUFFIX')");
    const in_place = b.option(
        bool,
        "in-place",
        "Also put the module into hftws/, so that the checkout can be imported (default: yes)",
    ) orelse true;
    const ipsec_mb = b.option(
        []const u8,
        "ipsec-mb",
        "Archive to link in: libIPSec_MB.a, version 1.3 to 2.0 (default: looked for at run time)",
    );
    const fault_seeds = b.option(
        u32,
        "fault-seeds",
        "How many seeds the tests of a failing kernel take; the default is what CI has time for",
    ) orelse 5_000;
    const test_filters = b.option(
        []const []const u8,
        "test-filter",
        "Run only the Zig tests whose name contains this",
    ) orelse &.{};

    const python_h = b.addTranslateC(.{
        .root_source_file = b.path("src/c/python.h"),
        .target = target,
        .optimize = optimize,
    });
    python_h.addIncludePath(.{ .cwd_relative = python_include });

    // The binding: the only module that sees Python.h.
    const extension = b.addLibrary(.{
        .name = "core",
        .linkage = .dynamic,
        .root_module = b.createModule(.{
            .root_source_file = b.path("src/python/module.zig"),
            .target = target,
            .optimize = optimize,
            .link_libc = true,
            .strip = optimize == .fast or optimize == .small,
            .imports = &.{
                .{ .name = "core", .module = coreModule(b, target, optimize, ipsec_mb) },
                .{ .name = "python", .module = python_h.createModule() },
            },
        }),
    });
    extension.linker_allow_shlib_undefined = true; // CPython's own symbols come from the process.
    if (ipsec_mb != null) {
        // Else the archive's functions are exported, and another library's may take their place.
        const files = b.addWriteFiles();
        extension.version_script = files.add("exports.map", "{ global: PyInit__core; local: *; };");
        extension.step.dependOn(&files.step); // Zig 0.17 does not see it in the script's path.
    }

    // The tests of the core need no interpreter. `safe` keeps the assertions and is quick enough
    // for tests over random input.
    const core_test = b.addTest(.{
        .root_module = coreModule(b, target, .safe, ipsec_mb),
        .filters = test_filters,
    });
    const test_options = b.addOptions();
    test_options.addOption(u32, "fault_seeds", fault_seeds);
    core_test.root_module.addOptions("test_options", test_options);

    // The steps.
    const install = b.addInstallArtifact(extension, .{
        .dest_dir = .{ .override = .prefix },
        .dest_sub_path = module_file,
        .dylib_symlinks = false,
    });
    b.getInstallStep().dependOn(&install.step);
    if (in_place) {
        const update = b.addUpdateSourceFiles();
        update.addCopyFileToSource(extension.getEmittedBin(), b.pathJoin(&.{ "hftws", module_file }));
        b.getInstallStep().dependOn(&update.step);
    }

    const test_step = b.step("test", "Run the tests of the core");
    test_step.dependOn(&b.addRunArtifact(core_test).step);

    // A declaration that nothing on this system uses is not even type checked. This step analyses
    // the core for every supported system, without generating code or linking.
    const check_step = b.step("check", "Type check the core for every supported system");
    for (supported_targets) |triple| {
        const query = std.Target.Query.parse(.{ .arch_os_abi = triple }) catch unreachable;
        const check = b.addTest(.{
            .root_module = coreModule(b, b.resolveTargetQuery(query), .debug, null),
        });
        check.root_module.addOptions("test_options", test_options);
        check_step.dependOn(&check.step);
    }
}

/// The core: Zig and libc. It knows nothing of Python, and finds OpenSSL when it runs; and
/// libipsec-mb too, unless its archive is given.
fn coreModule(
    b: *std.Build,
    target: std.Build.ResolvedTarget,
    optimize: std.lang.Optimize,
    ipsec_mb: ?[]const u8,
) *std.Build.Module {
    const options = b.addOptions();
    options.addOption(bool, "ipsec_mb_linked", ipsec_mb != null);
    const module = b.createModule(.{
        .root_source_file = b.path("src/core.zig"),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
        .imports = &.{.{ .name = "build_options", .module = options.createModule() }},
    });
    if (ipsec_mb) |archive| module.addObjectFile(.{ .cwd_relative = archive });
    return module;
}

fn askPython(b: *std.Build, python: []const u8, expression: []const u8) []const u8 {
    b.graph.poisonCache(); // Else the answer of the first run would stick.
    const code = b.fmt("import sysconfig; print({s})", .{expression});
    return std.mem.trimEnd(u8, b.run(&.{ python, "-c", code }), "\r\n");
}
