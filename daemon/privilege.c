/* SPDX-License-Identifier: MIT */
#include "privilege.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BIT(capability) (UINT64_C(1) << (capability))
#define MEMORY (BIT(CAP_IPC_LOCK) | BIT(CAP_SYS_NICE))
#define ROOM BIT(CAP_NET_ADMIN)
#define CONTROL (MEMORY | ROOM | BIT(CAP_KILL) | BIT(CAP_SYS_PTRACE))

static const struct {
	uint64_t effective, permitted;
} kept_by[] = {
	[PRIVILEGE_PARENT] = { ROOM, CONTROL },
	[PRIVILEGE_TAILER] = { 0, 0 },
	[PRIVILEGE_CONTROL] = { CONTROL, CONTROL },
	[PRIVILEGE_MEMORY] = { MEMORY, MEMORY },
};

/* Of root, what it executes would have all of it again.  It takes a privilege
 * of its own (CAP_SETPCAP); no_new_privs does without. */
static void bound(void)
{
	int i;

	for (i = 0; prctl(PR_CAPBSET_READ, i, 0, 0, 0) >= 0; i++)
		if (!(CONTROL & BIT(i)))
			prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
}

int privilege_shed(enum privilege kept)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
	unsigned i;

	bound();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_capget, &header, data))
		return -errno;
	for (i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		uint32_t permitted = (uint32_t)(kept_by[kept].permitted >> 32 * i);

		data[i].permitted &= permitted;
		data[i].inheritable &= permitted;
		data[i].effective =
			data[i].permitted & (uint32_t)(kept_by[kept].effective >> 32 * i);
	}
	return syscall(SYS_capset, &header, data) ? -errno : 0;
}
