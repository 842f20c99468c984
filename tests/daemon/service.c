/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "service.h"
#include "tap.h"

static struct sockaddr_un address = { .sun_family = AF_UNIX };

static int listen_as_manager(void)
{
	int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", test_tmpdir());
	CHECK_OK(bind(sock, (struct sockaddr *)&address, sizeof(address)));
	CHECK_OK(setenv("NOTIFY_SOCKET", address.sun_path, 1));
	return sock;
}

/* What the manager hears next, which makes room for what is owed; 0: nothing. */
static int hear(int sock, char *words, size_t bytes)
{
	ssize_t n = recv(sock, words, bytes - 1, 0);

	service_catch_up();
	if (n < 0)
		return 0;
	words[n] = 0;
	return 1;
}

TEST(what_a_manager_that_never_reads_is_owed_does_not_grow)
{
	int sock = listen_as_manager(), file = open("/dev/null", O_RDWR | O_CLOEXEC), i;
	unsigned dogs = 0, reloads = 0, stores = 0, forgets = 0;
	char words[256], last[256] = "";

	for (i = 0; i < 20000; i++) {
		service_notify("WATCHDOG=1");
		if (i % 100 == 0) {
			service_forget(7);
			service_store(7, file);
			service_notify("RELOADING=1");
			service_notify("READY=1");
		}
	}
	CHECK_EQ(service_catch_up(), 1);
	/* So much its socket holds; behind that comes each once more. */
	while (hear(sock, words, sizeof(words))) {
		dogs += !strcmp(words, "WATCHDOG=1");
		reloads += !strcmp(words, "RELOADING=1");
		stores += !strncmp(words, "FDSTORE=1", 9);
		forgets += !strncmp(words, "FDSTOREREMOVE=1", 15);
		memcpy(last, words, sizeof(last));
	}
	CHECK_EQ(service_catch_up(), 0);
	CHECK_LT(dogs, 10000);
	CHECK_LT(reloads, 100);
	CHECK_GE(stores, 1);
	CHECK_EQ(forgets, stores);
	CHECK_STR(last, "WATCHDOG=1");
	service_notify("READY=1");
	CHECK(hear(sock, words, sizeof(words)));
	CHECK_STR(words, "READY=1");
	close(file);
	close(sock);
}

TEST(what_is_owed_comes_in_the_order_in_which_it_was_said_last)
{
	static const char *const all[] = { "FDSTOREREMOVE=1\nFDNAME=slab-1", "RELOADING=1",
					   "FDSTORE=1\nFDNAME=slab-1\nFDPOLL=0", "READY=1",
					   "WATCHDOG=1" };
	int sock = listen_as_manager(), file = open("/dev/null", O_RDWR | O_CLOEXEC), i;
	char words[256];

	/* Until nothing more fits. */
	do
		service_notify("STATUS=");
	while (!service_catch_up());
	service_store(1, file);
	service_notify("WATCHDOG=1");
	service_forget(1);
	service_notify("RELOADING=1");
	service_store(1, file);
	service_notify("READY=1");
	service_notify("WATCHDOG=1");
	do
		CHECK(hear(sock, words, sizeof(words)));
	while (!strcmp(words, "STATUS="));
	for (i = 0; i < 5; i++) {
		CHECK_STR(words, all[i]);
		CHECK_EQ(hear(sock, words, sizeof(words)), i < 4);
	}
	close(file);
	close(sock);
}

TEST(a_watchdog_of_a_microsecond_leaves_time_for_the_bus)
{
	static const struct {
		const char *us;
		int64_t ns;
	} all[] = { { "1", 10000000 }, { "30000000", 30000000000 },  { "0", 0 }, { "-1", 0 },
		    { "1s", 0 },       { "18446744073709551616", 0 } };
	size_t i;

	unsetenv("WATCHDOG_PID");
	for (i = 0; i < sizeof(all) / sizeof(*all); i++) {
		CHECK_OK(setenv("WATCHDOG_USEC", all[i].us, 1));
		CHECK_EQ(service_watchdog_ns(), all[i].ns);
	}
}
