/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <unistd.h>

#include "layout.h"
#include "manifest.h"
#include "registry.h"
#include "tap.h"

/* Left by a parent that was killed while it wrote, and whose process id is
 * ours by now: in a container that is soon. */
TEST(a_manifest_is_written_where_another_was_begun)
{
	struct link_slab slab[LINK_SLABS_MAX];
	struct manifest m;
	struct files f;
	int fd;

	files_name(&f, test_tmpdir(), "unit");
	registry_slabs_wanted(slab);
	CHECK_GE(slab[0].fd = registry_make_slab(0, &slab[0]), 0);
	CHECK_GE(fd = open(f.scratch, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), 0);
	CHECK_EQ(write(fd, "shmq", 4), 4);
	close(fd);
	CHECK_OK(manifest_write(&f, "unit", 0x1234, slab));
	CHECK_OK(manifest_read(&f, &m));
	CHECK_EQ(m.nonce, 0x1234);
	CHECK_EQ(m.slab[0].is.kind, LAY_SLAB_REGISTRY);
	CHECK_LT(access(f.scratch, F_OK), 0);
	close(slab[0].fd);
}
