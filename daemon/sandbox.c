/* SPDX-License-Identifier: MIT */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#define ARCHITECTURE 0
#endif

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const int refused[] = {
#ifndef __SANITIZE_ADDRESS__ /* which looks for leaks by it */
	SYS_ptrace,
#endif
	SYS_process_vm_readv,
	SYS_process_vm_writev,
	SYS_pidfd_getfd,
	SYS_mount,
	SYS_umount2,
	SYS_pivot_root,
	SYS_chroot,
	SYS_move_mount,
	SYS_open_tree,
	SYS_fsopen,
	SYS_setns,
	SYS_unshare,
	SYS_open_by_handle_at,
	SYS_bpf,
	SYS_perf_event_open,
	SYS_userfaultfd,
	SYS_init_module,
	SYS_finit_module,
	SYS_delete_module,
	SYS_kexec_load,
	SYS_reboot,
	SYS_swapon,
	SYS_swapoff,
	SYS_add_key,
	SYS_request_key,
	SYS_keyctl,
	SYS_settimeofday,
	SYS_clock_settime,
	SYS_adjtimex,
	SYS_acct,
	SYS_quotactl,
	SYS_syslog,
	SYS_sethostname,
};

unsigned sandbox_count(void)
{
	return COUNT(refused);
}

int sandbox_call(unsigned i)
{
	return refused[i];
}

/* Architecture, then call by call; the last two say what to do. */
int sandbox_enter(void)
{
	struct sock_filter code[COUNT(refused) + 6];
	struct sock_fprog program = { .filter = code };
	unsigned n = 0, i, last = COUNT(code) - 1;

	if (!ARCHITECTURE)
		return -ENOSYS;
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, arch));
	code[n] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 0,
					       (unsigned char)(last - n - 1));
	n++;
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
						 offsetof(struct seccomp_data, nr));
	/* Those of x32 would be the same calls by other numbers. */
	code[n] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000,
					       (unsigned char)(last - n - 1), 0);
	n++;
	for (i = 0; i < COUNT(refused); i++, n++)
		code[n] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
						       (unsigned)refused[i],
						       (unsigned char)(last - n - 1), 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	program.len = (unsigned short)n;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
		return errno == EINVAL ? -ENOSYS : -errno;
	return 0;
}

/* ---- files ----------------------------------------------------------- */

#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (1ULL << 13)
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif
#define ABI_REFER 2
#define ABI_TRUNCATE 3

static uint64_t writes(long abi)
{
	return LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR |
	       LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
	       LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
	       LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
	       LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM |
	       LANDLOCK_ACCESS_FS_REFER | (abi >= ABI_TRUNCATE ? LANDLOCK_ACCESS_FS_TRUNCATE : 0);
}

/* The directory, or the nearest above it that is there. */
static int open_nearest(const char *directory)
{
	char path[PATH_MAX];
	char *slash;
	int fd;

	if (strlen(directory) >= sizeof(path))
		return -ENAMETOOLONG;
	strcpy(path, directory);
	for (;;) {
		fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		slash = strrchr(path, '/');
		if (!slash || (errno != ENOENT && errno != ENOTDIR))
			return -errno;
		slash[slash == path] = 0;
	}
}

static int allow(int rules, const char *directory, uint64_t access)
{
	struct landlock_path_beneath_attr beneath = { .allowed_access = access,
						      .parent_fd = open_nearest(directory) };
	int error = 0;

	if (beneath.parent_fd < 0)
		return beneath.parent_fd;
	if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0))
		error = -errno;
	close(beneath.parent_fd);
	return error;
}

int sandbox_limit_writes(const char *const *directories, unsigned count)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	struct landlock_ruleset_attr attr = { .handled_access_fs = writes(abi) };
	int rules, error = 0;
	unsigned i;

#ifdef SHMQ_SANITIZE /* whose reports are files anywhere */
	return 0;
#endif
	if (abi < ABI_REFER)
		return -ENOSYS;
	rules = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr.handled_access_fs), 0);
	if (rules < 0)
		return -errno;
	for (i = 0; i < count && !error; i++)
		error = allow(rules, directories[i], attr.handled_access_fs);
	if (!error && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
		       syscall(SYS_landlock_restrict_self, rules, 0)))
		error = -errno;
	close(rules);
	return error;
}
