//! What a container cannot see or do.

use std::path::Path;

use weft_worker::container::{Limits, NetNamespace, Runtime};

use crate::lab::{Lab, block_on};

/// Docker's default capabilities as a mask.
const DOCKER_CAPS: u64 = 0xa804_25fb;
const CAP_MKNOD: u64 = 1 << 27;

#[test]
fn namespaces_are_its_own() {
    let lab = Lab::new("ns");
    block_on(async {
        let mut config = lab.shell(
            "a",
            "echo $$; hostname; cat /etc/hostname; ls /proc/self/ns >/dev/null; sleep 1000",
        );
        config.hostname = "web".into();
        let (id, pid) = lab.started(config).await;
        let created = lab.embedded.status(&id).await.expect("status");
        let ns = |pid: i32, kind: &str| {
            std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("ns")
        };
        for kind in ["pid", "mnt", "uts", "ipc", "net", "cgroup"] {
            assert_ne!(ns(pid, kind), ns(std::process::id() as i32, kind), "{kind}");
        }
        assert_eq!(ns(pid, "net"), ns(created.shim_pid, "net"));
        crate::lab::eventually("it has spoken", || {
            Path::new(&format!("/proc/{pid}")).exists()
                && std::fs::metadata(
                    lab.state_dir().join("containers").join(id.as_str()).join("log"),
                )
                .is_ok_and(|m| m.len() >= 10)
        })
        .await;
        let (out, err) = lab.output(&id).await;
        assert!(out.starts_with("1\nweb\n"), "{out} {err}");
    });
}

#[test]
fn the_network_namespace_has_a_loopback_and_the_dns_sockets_answer_to_us() {
    let lab = Lab::new("dns");
    block_on(async {
        let config = lab.shell("a", "ifconfig lo; cat /proc/net/udp /proc/net/tcp");
        let id = config.id.clone();
        let created = lab.embedded.create(config).await.expect("create");
        assert!(created.netns.exists());
        let dns = created.dns.expect("sockets");
        assert_eq!(
            dns.udp.local_addr().expect("addr").to_string(),
            format!("127.0.0.11:{}", dns.port)
        );
        assert_eq!(dns.tcp.local_addr().expect("addr"), dns.udp.local_addr().expect("addr"));
        assert!(dns.port > 1024);
        lab.embedded.start(&id).await.expect("start");
        lab.embedded.wait(&id).await.expect("wait");
        let (out, _) = lab.output(&id).await;
        assert!(out.contains("127.0.0.1"), "{out}");
        let socket = format!("0B00007F:{:04X}", dns.port);
        assert_eq!(out.matches(&socket).count(), 2, "{out}");
        // A host container shares ours, and has none.
        let mut host = lab.shell("host", "readlink /proc/self/ns/net");
        host.network = NetNamespace::Host;
        let (_, out, _) = lab.run(host).await;
        let ours = std::fs::read_link("/proc/self/ns/net").expect("ns");
        assert_eq!(out.trim(), ours.to_string_lossy());
        assert!(lab.embedded.dns_sockets(&lab.id("host")).await.is_err());
        // A joined one shares another container's.
        let mut joined = lab.shell("joined", "readlink /proc/self/ns/net");
        joined.network = NetNamespace::Join(created.netns.clone());
        let (_, out, _) = lab.run(joined).await;
        assert_eq!(out.trim(), std::fs::read_link(created.netns).expect("ns").to_string_lossy());
    });
}

#[test]
fn capabilities_and_the_call_filter_are_dockers() {
    let lab = Lab::new("caps");
    block_on(async {
        let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:|SigIgn|SigBlk)' /proc/self/status; mount -t tmpfs x /tmp; \
                      echo mount $?; unshare -U true; echo unshare $?; mkdir /tmp/r; chroot / true; echo chroot $?";
        let created = lab.embedded.create(lab.shell("a", script)).await.expect("create");
        let id = lab.id("a");
        lab.embedded.start(&id).await.expect("start");
        lab.embedded.wait(&id).await.expect("wait");
        let (out, err) = lab.output(&id).await;
        let field = |name: &str| -> u64 {
            let line = out.lines().find(|l| l.starts_with(name)).expect(name);
            u64::from_str_radix(line.rsplit('\t').next().expect("value"), 16).expect("hex")
        };
        let guarded = !created.missing.iter().any(|m| m.contains("CAP_MKNOD"));
        let want = if guarded { DOCKER_CAPS } else { DOCKER_CAPS & !CAP_MKNOD };
        assert_eq!(
            (field("CapEff"), field("CapPrm"), field("CapBnd")),
            (want, want, want),
            "{out}"
        );
        assert_eq!((field("CapInh"), field("CapAmb")), (0, 0));
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), (1, 2), "{out}");
        // Nothing of the Rust runtime's or the shim's signal settings has come along.
        assert_eq!((field("SigIgn"), field("SigBlk")), (0, 0), "{out}");
        assert!(out.contains("mount 1") && out.contains("unshare 1"), "{out} {err}");
        assert!(err.contains("not permitted"), "{err}");
        assert!(out.contains("chroot 0"), "{out} {err}");
    });
}

#[test]
fn device_files_of_the_host_stay_shut() {
    let lab = Lab::new("devices");
    block_on(async {
        // Where the test machine has a disk as Linux usually numbers it; mknod needs none.
        let script = "for d in /dev /tmp; do mknod $d/disk b 254 0; cat $d/disk >/dev/null 2>&1 && echo open $d; done; \
                      echo x >/dev/null && head -c 1 /dev/zero | wc -c; ls /dev";
        let (_, out, err) = lab.run(lab.shell("a", script)).await;
        assert!(!out.contains("open"), "{out} {err}");
        assert!(out.starts_with("1\n"), "{out} {err}");
        for name in [
            "console", "full", "null", "ptmx", "random", "tty", "urandom", "zero", "pts", "shm",
            "mqueue",
        ] {
            assert!(name == "console" || out.lines().any(|l| l == name), "{name}: {out}");
        }
    });
}

#[test]
fn the_kernels_files_are_masked_or_read_only() {
    let lab = Lab::new("masked");
    block_on(async {
        let script = "cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; echo 1 >/proc/sys/kernel/domainname; echo sys $?; \
                      echo b >/proc/sysrq-trigger; echo sysrq $?; mkdir /sys/x; echo sysfs $?; \
                      ls /sys/class/net; echo done";
        let (_, out, err) = lab.run(lab.shell("a", script)).await;
        assert_eq!(out, "0\n0\nsys 1\nsysrq 1\nsysfs 1\nlo\ndone\n", "{err}");
    });
}

#[test]
fn the_helpers_own_program_cannot_be_written_from_inside() {
    let lab = Lab::new("self");
    block_on(async {
        // The image's program is the helper itself, by way of the kernel's link (CVE-2019-5736).
        std::os::unix::fs::symlink("/proc/self/exe", lab.rootfs().join("bin/me")).expect("symlink");
        let before = std::fs::metadata(crate::lab::helper()).expect("helper");
        let config = lab.config("a", &["/bin/me", "__container-create"]);
        let id = config.id.clone();
        lab.embedded.create(config).await.expect("create");
        // Its loader is not in the image, or it refuses its words; whichever, it is no way out.
        if lab.embedded.start(&id).await.is_ok() {
            assert_ne!(lab.embedded.wait(&id).await.expect("wait").code, 0);
        }
        let after = std::fs::metadata(crate::lab::helper()).expect("helper");
        assert_eq!(before.modified().expect("time"), after.modified().expect("time"));
        // What a shim hands to its helpers lies on a mount that takes no writes.
        let (id, _) = lab.started(lab.config("b", &["sleep", "1000"])).await;
        let status = lab.embedded.status(&id).await.expect("status");
        let exe = std::fs::read_link(format!("/proc/{}/exe", status.shim_pid)).expect("link");
        assert!(exe.to_string_lossy().contains("memfd:weft-shim"), "{exe:?}");
    });
}

#[test]
fn limits_hold_or_are_said_to_be_missing() {
    let lab = Lab::new("limits");
    block_on(async {
        let mut config =
            lab.shell("mem", "dd if=/dev/zero of=/dev/null bs=60M count=1; echo dd $?");
        config.limits = Limits { memory: Some(16 << 20), cpu_millis: Some(500), pids: Some(20) };
        let id = config.id.clone();
        let created = lab.embedded.create(config).await.expect("create");
        lab.embedded.start(&id).await.expect("start");
        let exit = lab.embedded.wait(&id).await.expect("wait");
        let (out, _) = lab.output(&id).await;
        if created.missing.iter().any(|m| m.contains("memory")) {
            assert!(out.contains("dd 0"), "{out}");
        } else {
            assert!(out.contains("dd 137") && exit.oom, "{out} {exit:?}");
        }
        let mut config =
            lab.shell("pids", "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all");
        config.limits.pids = Some(5);
        let id = config.id.clone();
        let created = lab.embedded.create(config).await.expect("create");
        lab.embedded.start(&id).await.expect("start");
        lab.embedded.wait(&id).await.expect("wait");
        let missing = created.missing.iter().any(|m| m.contains("processes"));
        assert_eq!(lab.output(&id).await.0.contains("all"), missing);
        let found = lab.embedded.list().await.expect("list");
        let kept = found.iter().find(|f| f.id == id).expect("it is there");
        assert_eq!(kept.missing, created.missing, "it is still known later");
        for found in found {
            lab.embedded.remove(&found.id).await.expect("remove");
        }
        lab.assert_nothing_left();
    });
}

#[test]
fn no_descriptor_of_ours_comes_along() {
    let lab = Lab::new("fds");
    block_on(async {
        let (_, pid) = lab.started(lab.config("a", &["sleep", "1000"])).await;
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").flatten();
        let mut open: Vec<String> =
            open.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        open.sort();
        assert_eq!(open, ["0", "1", "2"]);
    });
}

#[test]
fn it_sees_its_own_cgroups_and_cannot_write_them() {
    let lab = Lab::new("cgroups");
    block_on(async {
        let mut config = lab.shell(
            "a",
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; \
             for f in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs; do \
             test -e $f && grep -q '^1$' $f && echo in; echo 0 2>/dev/null >$f && echo writable; done; \
             mkdir /sys/fs/cgroup/memory/x /sys/fs/cgroup/x 2>/dev/null && echo made; echo done",
        );
        config.limits.memory = Some(64 << 20);
        let id = config.id.clone();
        let created = lab.embedded.create(config).await.expect("create");
        lab.embedded.start(&id).await.expect("start");
        lab.embedded.wait(&id).await.expect("wait");
        let (out, err) = lab.output(&id).await;
        assert!(
            out.ends_with("done\n") && !out.contains("writable") && !out.contains("made"),
            "{out}"
        );
        if created.missing.is_empty() {
            assert!(out.starts_with("67108864\n") && out.contains("in\n"), "{out} {err}");
        }
    });
}
