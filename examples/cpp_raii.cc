/* SPDX-License-Identifier: MIT
 *
 * C++ includes shmq.h as it is.  Handles close themselves by unique_ptr, errors
 * are thrown, and a message is looked at in place.
 *
 *   c++ -std=c++17 -o cpp_raii cpp_raii.cc $(pkg-config --cflags --libs shmq)
 *   ./cpp_raii
 */
#include <shmq.h>

#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

namespace
{

struct closer {
	void operator()(shmq_bus *bus) const
	{
		shmq_bus_close(bus);
	}
	void operator()(shmq_pub *pub) const
	{
		shmq_pub_close(pub);
	}
	void operator()(shmq_sub *sub) const
	{
		shmq_sub_close(sub);
	}
};
template <typename T> using handle = std::unique_ptr<T, closer>;

void check(int rc, const char *doing)
{
	if (rc < 0)
		throw std::runtime_error(std::string(doing) + ": " + shmq_strerror(rc) + ": " +
					 shmq_bus_error(nullptr));
}

handle<shmq_bus> open_bus()
{
	shmq_bus_options options = {};
	shmq_bus *bus = nullptr;

	options.size = sizeof(options);
	options.start = SHMQ_START_ON_DEMAND;
	check(shmq_bus_open(nullptr, &options, &bus), "attaching");
	return handle<shmq_bus>(bus);
}

handle<shmq_pub> open_pub(shmq_bus *bus, const char *topic)
{
	shmq_pub *pub = nullptr;

	check(shmq_pub_open(bus, topic, nullptr, &pub), "publishing");
	return handle<shmq_pub>(pub);
}

handle<shmq_sub> open_sub(shmq_bus *bus, const char *topic)
{
	shmq_sub *sub = nullptr;

	check(shmq_sub_open(bus, topic, nullptr, &sub), "subscribing");
	return handle<shmq_sub>(sub);
}

void show()
{
	auto bus = open_bus();

	check(shmq_topic_create(bus.get(), "cpp", nullptr, nullptr), "creating");
	{
		auto sub = open_sub(bus.get(), "cpp");
		auto pub = open_pub(bus.get(), "cpp");

		for (std::string_view word : { "from", "C++", "without", "a", "wrapper" })
			check(shmq_publish(pub.get(), word.data(), word.size()), "publishing");
		for (int i = 0; i < 5; i++) {
			shmq_msg msg = {};

			check(shmq_receive(sub.get(), &msg, SHMQ_FOREVER), "receiving");
			std::cout << msg.seq << ' '
				  << std::string_view(static_cast<const char *>(msg.data), msg.len)
				  << '\n';
		}
	}
	check(shmq_topic_remove(bus.get(), "cpp", 0), "removing");
}

} // namespace

int main()
{
	try {
		show();
	} catch (const std::exception &error) {
		std::cerr << "cpp_raii: " << error.what() << '\n';
		return 1;
	}
	return 0;
}
