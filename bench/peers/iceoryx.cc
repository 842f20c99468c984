/* SPDX-License-Identifier: MIT
 *
 * iceoryx with its untyped interface and a RouDi of our own.  Publishers
 * wait for subscribers; a subscriber polls take(), or sleeps in a WaitSet.
 */
#include "common.h"

#include <iceoryx_hoofs/log/logmanager.hpp>
#include <iceoryx_posh/internal/runtime/posh_runtime_impl.hpp>
#include <iceoryx_posh/popo/untyped_publisher.hpp>
#include <iceoryx_posh/popo/untyped_subscriber.hpp>
#include <iceoryx_posh/popo/wait_set.hpp>
#include <iceoryx_posh/runtime/posh_runtime.hpp>
#include <iceoryx_versions.hpp>

#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

namespace
{
using iox::cxx::TruncateToCapacity;

/* How many subscribers are connected: the interface tells only whether any
 * is. */
class counting_port : public iox::popo::PublisherPortUser
{
      public:
	using iox::popo::PublisherPortUser::PublisherPortUser;
	uint64_t subscribers() const
	{
		auto *data = static_cast<const MemberType_t *>(BasePort::getMembers());

		return data->m_chunkSenderData.m_queues.size();
	}
};

class publisher : public iox::popo::UntypedPublisherImpl<iox::popo::BasePublisher<counting_port>>
{
      public:
	using UntypedPublisherImpl::UntypedPublisherImpl;
	uint64_t subscribers() const
	{
		return port().subscribers();
	}
};

struct end {
	peer_channel channel;
	std::unique_ptr<publisher> pub;
	std::unique_ptr<iox::popo::UntypedSubscriber> sub;
	std::unique_ptr<iox::popo::WaitSet<1>> waits; /* goes before what it waits for */
	unsigned polls = 0;
};

pid_t roudi;

/* The lock that tells whether a RouDi has what there is only once on a
 * machine: the descriptor, or -1 if it has. */
int take_lock()
{
	int fd = open("/tmp/iox-unique-roudi.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* That of a run which was killed may still be ending. */
void await_another()
{
	for (int ms = 0; ms < 3000; ms++) {
		int fd = take_lock();

		if (fd >= 0) {
			close(fd);
			return;
		}
		peer_nap();
	}
}

int start(const char *dir)
{
	const std::string config = std::string(dir) + "/roudi.toml";
	const std::string log = std::string(dir) + "/roudi.log";
	/* Enough for the queues of 16 subscribers that differ in all they
	 * hold. */
	static const struct {
		unsigned bytes, count;
	} pools[] = { { 128, 8192 },   { 1536, 4096 },  { 16640, 4096 },
		      { 66048, 1024 }, { 262400, 256 }, { 1048832, 64 } };
	std::ofstream out(config);
	std::string line;

	out << "[general]\nversion = 1\n[[segment]]\n";
	for (const auto &pool : pools)
		out << "[[segment.mempool]]\nsize = " << pool.bytes << "\ncount = " << pool.count
		    << "\n";
	out.close();
	/* Unmonitored: clients say when they go, and one that was stopped for
	 * two seconds would have its memory taken away. */
	const char *argv[] = { "iox-roudi", "-c", config.c_str(), "-k", "1", "-m", "off", nullptr };
	await_another();
	roudi = peer_spawn(argv[0], argv, log.c_str());
	while (roudi > 0 && peer_alive(roudi)) {
		std::ifstream said(log);

		while (std::getline(said, line))
			if (line.find("ready for clients") != std::string::npos)
				return 0;
		peer_nap();
	}
	return peer_error("RouDi did not start; perhaps another one is running");
}

/* RouDi cleans up, but aborts where a client was killed. */
void stop()
{
	const group *owner = getgrgid(getegid());
	int fd;

	peer_end(roudi);
	fd = take_lock();
	if (fd < 0)
		return;
	shm_unlink("/iceoryx_mgmt");
	if (owner)
		shm_unlink((std::string("/") + owner->gr_name).c_str());
	for (const char *path : { "/tmp/roudi", "/tmp/roudi.lock", "/tmp/iox-unique-roudi.lock" })
		unlink(path);
	close(fd);
}

/* A process has one runtime, which by itself lives until exit(); here it goes
 * with the last end, since the benchmarks leave by _exit() and RouDi is told
 * when it goes. */
class runtime : public iox::runtime::PoshRuntimeImpl
{
      public:
	explicit runtime(iox::cxx::optional<const iox::RuntimeName_t *> name)
	    : PoshRuntimeImpl(name)
	{
	}
};

class ends_count : public iox::runtime::PoshRuntime
{
	static inline std::unique_ptr<runtime> the_one;
	static inline unsigned count;

	static PoshRuntime &get(iox::cxx::optional<const iox::RuntimeName_t *> name)
	{
		if (!the_one)
			the_one = std::make_unique<runtime>(name);
		return *the_one;
	}

      public:
	static void add(const std::string &name)
	{
		if (count++)
			return;
		iox::log::LogManager::GetLogManager().SetDefaultLogLevel(
			iox::log::LogLevel::kError, iox::log::LogLevelOutput::kHideLogLevel);
		setRuntimeFactory(get);
		initRuntime(iox::RuntimeName_t(TruncateToCapacity, name));
	}
	static void drop()
	{
		if (!--count)
			the_one.reset();
	}
};

void add_end(const peer_channel *channel)
{
	ends_count::add(std::string(channel->name) + "-" + std::to_string(getpid()));
}

iox::capro::ServiceDescription service(const peer_channel *channel)
{
	return { "bench", iox::capro::IdString_t(TruncateToCapacity, std::string(channel->name)),
		 "message" };
}

void *open_send(const peer_channel *channel)
{
	auto e = std::make_unique<end>();
	iox::popo::PublisherOptions options;

	add_end(channel);
	options.subscriberTooSlowPolicy = iox::popo::ConsumerTooSlowPolicy::WAIT_FOR_CONSUMER;
	e->channel = *channel;
	e->pub = std::make_unique<publisher>(service(channel), options);
	while (e->pub->subscribers() < channel->receivers)
		peer_nap();
	return e.release();
}

void *open_recv(const peer_channel *channel)
{
	auto e = std::make_unique<end>();
	iox::popo::SubscriberOptions options;

	add_end(channel);
	options.queueFullPolicy = iox::popo::QueueFullPolicy::BLOCK_PRODUCER;
	options.queueCapacity = peer_depth(channel, 4, 256);
	e->channel = *channel;
	e->sub = std::make_unique<iox::popo::UntypedSubscriber>(service(channel), options);
	if (channel->wait == PEER_SLEEP) {
		e->waits = std::make_unique<iox::popo::WaitSet<1>>();
		if (e->waits->attachState(*e->sub, iox::popo::SubscriberState::HAS_DATA)
			    .has_error()) {
			peer_error("attaching to a WaitSet");
			return nullptr;
		}
	}
	return e.release();
}

void *loan(void *handle, size_t len)
{
	auto room = static_cast<end *>(handle)->pub->loan(static_cast<uint32_t>(len));

	if (!room.has_error())
		return room.value();
	peer_error("loaning %zu bytes: error %u", len, static_cast<unsigned>(room.get_error()));
	return nullptr;
}

int publish(void *handle, void *room)
{
	static_cast<end *>(handle)->pub->publish(room);
	return 0;
}

const void *take(void *handle, size_t *len)
{
	auto *e = static_cast<end *>(handle);

	for (;;) {
		auto got = e->sub->take();

		if (!got.has_error()) {
			*len = iox::mepoo::ChunkHeader::fromUserPayload(got.value())
				       ->userPayloadSize();
			return got.value();
		}
		if (got.get_error() != iox::popo::ChunkReceiveResult::NO_CHUNK_AVAILABLE) {
			peer_error("taking: error %u", static_cast<unsigned>(got.get_error()));
			return nullptr;
		}
		if (e->waits)
			e->waits->wait();
		else
			peer_relax(&e->polls);
	}
}

void release(void *handle, const void *message)
{
	static_cast<end *>(handle)->sub->release(message);
}

int send_copy(void *handle, const void *data, size_t len)
{
	void *room = loan(handle, len);

	if (!room)
		return -1;
	std::memcpy(room, data, len);
	return publish(handle, room);
}

ssize_t recv_copy(void *handle, void *buf, size_t capacity)
{
	size_t len;
	const void *message = take(handle, &len);

	if (!message)
		return -1;
	if (len > capacity)
		return peer_error("a message of %zu bytes is too long", len);
	std::memcpy(buf, message, len);
	release(handle, message);
	return static_cast<ssize_t>(len);
}

/* What a publisher leaves in queues stays there for the subscribers. */
void close_end(void *handle)
{
	delete static_cast<end *>(handle);
	ends_count::drop();
}

} // namespace

static const char *version(void)
{
	return ICEORYX_LATEST_RELEASE_VERSION;
}

extern "C" const struct peer bench_peer = {
	.name = "iceoryx",
	.max_bytes = 1 << 20,
	.waits = PEER_SPIN | PEER_SLEEP,
	.fan_out = 16,
	.fan_in = 16,
	.version = version,
	.start = start,
	.stop = stop,
	.open_send = open_send,
	.open_recv = open_recv,
	.send = send_copy,
	.recv = recv_copy,
	.close = close_end,
	.loan = loan,
	.publish = publish,
	.take = take,
	.release = release,
};
