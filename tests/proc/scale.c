/* SPDX-License-Identifier: MIT
 *
 * Ten thousand topics, a thousand clients: it works, and it adds up.  What
 * a publish costs then is a bench's question.
 */
#include "helpers.h"

#include <sys/resource.h>

enum { TOPICS = 10000, CLIENTS = 1000, WAVES = 10, DEPTH = 1024 };

static uint64_t meminfo_available(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib << 10;
}

static const char *topic_name(int i)
{
	static char name[32];

	snprintf(name, sizeof(name), "md.topic.%05d", i);
	return name;
}

static int64_t lap(const char *what, int64_t from)
{
	int64_t now = test_now_ns();

	NOTE("%s: %.2f s", what, (double)(now - from) / 1e9);
	return now;
}

struct sum {
	uint64_t head, topics, publishers, subscribers;
};

static int add_topic(void *arg, const struct shmq_topic_info *info)
{
	struct sum *sum = arg;

	sum->topics++;
	sum->head += info->head;
	sum->publishers += info->publishers;
	sum->subscribers += info->subscribers;
	return 0;
}

TEST_WITHIN(ten_thousand_topics_are_created_opened_published_and_removed_by_one_client, 120)
{
	shmq_pub **pub = calloc(TOPICS, sizeof(*pub));
	shmq_sub **sub = calloc(TOPICS, sizeof(*sub));
	int64_t at = test_now_ns();
	struct shmq_bus_info info;
	struct sum sum = { 0 };
	struct shmq_msg msg;
	shmq_bus *bus;

	if (meminfo_available() < UINT64_C(3) << 30)
		SKIP("less than 3 GiB of memory are available");
	test_bus_start("--log-level", "warn");
	bus = test_bus_open();
	for (int i = 0; i < TOPICS; i++)
		create(bus, topic_name(i), .depth = DEPTH, .slot_bytes = 64,
		       .lock = SHMQ_LOCK_NEVER);
	at = lap("create", at);
	for (int i = 0; i < TOPICS; i++)
		pub[i] = open_pub(bus, topic_name(i));
	at = lap("open publishers", at);
	for (int i = 0; i < TOPICS; i += 10)
		sub[i] = open_sub(bus, topic_name(i));
	at = lap("open a tenth as subscribers", at);
	for (int round = 0; round < 5; round++)
		for (int i = 0; i < TOPICS; i++)
			CHECK_OK(shmq_publish(pub[i], &i, sizeof(i)));
	at = lap("publish five messages each", at);
	for (int i = 0; i < TOPICS; i += 10)
		for (int round = 0; round < 5; round++) {
			CHECK_OK(shmq_receive(sub[i], &msg, SHMQ_NOWAIT));
			CHECK_MEM(msg.data, &i, sizeof(i));
		}
	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_EQ(info.topics, TOPICS);
	CHECK_OK(shmq_topic_each(bus, add_topic, &sum));
	CHECK_EQ(sum.topics, TOPICS);
	CHECK_EQ(sum.head, 5 * TOPICS);
	CHECK_EQ(sum.publishers, TOPICS);
	CHECK_EQ(sum.subscribers, TOPICS / 10);
	at = lap("receive and list", at);
	NOTE("%llu bytes a topic", (unsigned long long)(info.bytes / TOPICS));
	CHECK_LE(info.bytes / TOPICS, 100 << 10); /* 68 KiB of ring, and not 2 MiB of page */
	/* A new worker finds them all. */
	CHECK_OK(kill(test_bus_worker_pid(bus), SIGKILL));
	create(bus, "one.more", .depth = DEPTH);
	CHECK_OK(shmq_topic_remove(bus, "one.more", 0));
	at = lap("adopt", at);
	shmq_bus_close(bus);
	at = lap("close", at);
	bus = test_bus_open();
	sum = (struct sum){ 0 };
	CHECK_OK(shmq_topic_each(bus, add_topic, &sum));
	CHECK_EQ(sum.topics, TOPICS);
	CHECK_EQ(sum.publishers, 0);
	CHECK_EQ(sum.subscribers, 0);
	for (int i = 0; i < TOPICS; i++)
		CHECK_OK(shmq_topic_remove(bus, topic_name(i), 0));
	lap("remove", at);
	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_EQ(info.topics, 0);
	shmq_bus_close(bus);
	free(pub);
	free(sub);
	test_bus_stop();
}

/* ---- clients -------------------------------------------------------------------- */

struct crowd {
	_Atomic int present;
	int done[2]; /* a pipe that is closed when all may go: a thousand that poll are a load */
};

/* A client: a publisher on the shared topic, a subscriber on the other. */
static int attend(void *arg)
{
	struct crowd *crowd = arg;
	/* Without the library's thread, as a light client is: a thousand threads
	 * that each hear of each other are three million events. */
	struct shmq_bus_options o = { .size = sizeof(o),
				      .timeout_ns = PATIENCE,
				      .serve = SHMQ_SERVE_CALLER };
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *up;
	shmq_sub *down;
	int rc;

	o.runtime_dir = test_bus_dir();
	rc = shmq_bus_open(test_bus_name(), &o, &bus);
	if (rc)
		FAIL("%s: %s", shmq_errname(rc), shmq_bus_error(NULL));
	down = open_sub(bus, "down", .wait = SHMQ_WAIT_SLEEP);
	up = open_pub(bus, "up");
	atomic_fetch_add(&crowd->present, 1);
	CHECK_OK(shmq_receive(down, &msg, PATIENCE));
	CHECK_MEM(msg.data, "speak", 5);
	CHECK_OK(shmq_release(down));
	CHECK_OK(shmq_publish(up, &(unsigned){ shmq_bus_client_id(bus) }, sizeof(unsigned)));
	close(crowd->done[1]);
	CHECK_EQ(read(crowd->done[0], &rc, 1), 0);
	if (shmq_bus_client_id(bus) % 2) /* half of them just vanish */
		raise(SIGKILL);
	shmq_bus_close(bus);
	return 0;
}

TEST_WITHIN(a_thousand_clients_are_attached_at_once, 120)
{
	struct crowd *crowd = shared_memory(sizeof(*crowd));
	unsigned char *heard = calloc(1 << 14, 1);
	pid_t *child = calloc(CLIENTS, sizeof(*child));
	int64_t at = test_now_ns();
	struct shmq_bus_info info;
	struct rlimit limit;
	struct shmq_msg msg;
	shmq_bus *bus;
	shmq_pub *down;
	shmq_sub *up;

	CHECK_OK(getrlimit(RLIMIT_NPROC, &limit));
	if (limit.rlim_cur < 2 * CLIENTS)
		SKIP("no more than %llu processes are allowed", (unsigned long long)limit.rlim_cur);
	CHECK_OK(getrlimit(RLIMIT_NOFILE, &limit));
	if (limit.rlim_max < 4 * CLIENTS)
		SKIP("no more than %llu descriptors are allowed",
		     (unsigned long long)limit.rlim_max);
	if (meminfo_available() < UINT64_C(2) << 30)
		SKIP("less than 2 GiB of memory are available");
	CHECK_OK(pipe(crowd->done));
	test_bus_start("--log-level", "warn");
	/* Waves, each forked before this process has a bus or a thread. */
	for (int wave = 0; wave < WAVES; wave++) {
		if (!wave) {
			bus = test_bus_open();
			create(bus, "up", .depth = 4 * DEPTH, .mode = SHMQ_SHARED,
			       .wait = SHMQ_WAIT_SLEEP);
			create(bus, "down", .depth = DEPTH, .wait = SHMQ_WAIT_SLEEP);
			shmq_bus_close(bus);
		}
		for (int i = 0; i < CLIENTS / WAVES; i++)
			child[wave * (CLIENTS / WAVES) + i] = test_spawn(attend, crowd);
		await(&crowd->present, (wave + 1) * (CLIENTS / WAVES));
	}
	at = lap("attach, subscribe and open for publishing", at);
	bus = test_bus_open();
	up = open_sub(bus, "up");
	down = open_pub(bus, "down");
	CHECK_OK(shmq_bus_get_info(bus, &info));
	CHECK_EQ(info.clients, CLIENTS + 1);
	CHECK_EQ(topic_info(bus, "down").subscribers, CLIENTS);
	CHECK_EQ(topic_info(bus, "up").publishers, CLIENTS);
	CHECK_EQ(peers_of(bus, "down", SHMQ_ROLE_SUBSCRIBER).count, CLIENTS);
	CHECK_OK(shmq_publish(down, "speak", 5));
	for (int i = 0; i < CLIENTS; i++) {
		unsigned id;

		CHECK_OK(shmq_receive(up, &msg, PATIENCE));
		memcpy(&id, msg.data, sizeof(id));
		CHECK_LT(id, 1 << 14);
		CHECK_EQ(heard[id], 0); /* each once */
		heard[id] = 1;
	}
	CHECK_OK(shmq_flush(down, PATIENCE));
	at = lap("one message to all, one from each", at);
	close(crowd->done[0]);
	close(crowd->done[1]);
	for (int i = 0; i < CLIENTS; i++) {
		int status = test_join(child[i]);

		if (status)
			CHECK_EQ(status, 128 + SIGKILL);
	}
	do
		CHECK_OK(shmq_bus_get_info(bus, &info));
	while (info.clients > 1 && (test_sleep_ms(1), 1));
	CHECK_EQ(topic_info(bus, "down").subscribers, 0);
	CHECK_EQ(topic_info(bus, "up").publishers, 0);
	lap("leave or die", at);
	shmq_bus_close(bus);
	free(heard);
	free(child);
	test_bus_stop();
}
