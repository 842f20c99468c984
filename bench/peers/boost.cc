/* SPDX-License-Identifier: MIT
 *
 * Boost.Interprocess message_queue: one for each receiver, shared by its
 * senders.
 */
#include "common.h"

#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/version.hpp>

#include <exception>
#include <memory>
#include <string>
#include <vector>

namespace
{
namespace ipc = boost::interprocess;

struct end {
	peer_channel channel;
	std::string created; /* receivers: what to remove */
	std::vector<std::unique_ptr<ipc::message_queue>> queues;
	unsigned polls = 0;
};

std::string queue_name(const peer_channel *channel, unsigned receiver)
{
	return std::string(channel->name) + "." + std::to_string(receiver);
}

std::unique_ptr<ipc::message_queue> open_queue(const std::string &name)
{
	for (;;) {
		try {
			return std::make_unique<ipc::message_queue>(ipc::open_only, name.c_str());
		} catch (const ipc::interprocess_exception &e) {
			if (e.get_error_code() != ipc::not_found_error)
				throw;
			peer_nap();
		}
	}
}

void *open_send(const peer_channel *channel)
try {
	auto e = std::make_unique<end>();

	e->channel = *channel;
	for (unsigned i = 0; i < channel->receivers; i++)
		e->queues.push_back(open_queue(queue_name(channel, i)));
	return e.release();
} catch (const std::exception &x) {
	peer_error("opening a queue: %s", x.what());
	return nullptr;
}

void *open_recv(const peer_channel *channel)
try {
	auto e = std::make_unique<end>();

	e->channel = *channel;
	e->created = queue_name(channel, channel->index);
	e->queues.push_back(
		std::make_unique<ipc::message_queue>(ipc::create_only, e->created.c_str(),
						     peer_depth(channel, 8, 1024), channel->bytes));
	return e.release();
} catch (const std::exception &x) {
	peer_error("creating a queue: %s", x.what());
	return nullptr;
}

int send_all(void *handle, const void *data, size_t len)
try {
	auto *e = static_cast<end *>(handle);

	for (auto &queue : e->queues) {
		if (e->channel.wait == PEER_SLEEP)
			queue->send(data, len, 0);
		else
			while (!queue->try_send(data, len, 0))
				peer_relax(&e->polls);
	}
	return 0;
} catch (const std::exception &x) {
	return peer_error("sending: %s", x.what());
}

ssize_t recv_next(void *handle, void *buf, size_t capacity)
try {
	auto *e = static_cast<end *>(handle);
	ipc::message_queue::size_type len;
	unsigned priority;

	if (e->channel.wait == PEER_SLEEP)
		e->queues[0]->receive(buf, capacity, len, priority);
	else
		while (!e->queues[0]->try_receive(buf, capacity, len, priority))
			peer_relax(&e->polls);
	return static_cast<ssize_t>(len);
} catch (const std::exception &x) {
	return peer_error("receiving: %s", x.what());
}

void close_end(void *handle)
{
	std::unique_ptr<end> e(static_cast<end *>(handle));

	if (!e->created.empty())
		ipc::message_queue::remove(e->created.c_str());
}

} // namespace

static const char *version(void)
{
	static char text[32];

	snprintf(text, sizeof(text), "%d.%d.%d", BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000,
		 BOOST_VERSION % 100);
	return text;
}

extern "C" const struct peer bench_peer = {
	.name = "boost",
	.max_bytes = 1 << 30,
	.waits = PEER_SPIN | PEER_SLEEP,
	.fan_out = 64,
	.fan_in = 64,
	.version = version,
	.start = nullptr,
	.stop = nullptr,
	.open_send = open_send,
	.open_recv = open_recv,
	.send = send_all,
	.recv = recv_next,
	.close = close_end,
	.loan = nullptr,
	.publish = nullptr,
	.take = nullptr,
	.release = nullptr,
};
