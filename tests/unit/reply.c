/* SPDX-License-Identifier: MIT
 *
 * What stands in front of the properties of requests and replies: put there, and
 * taken off what anybody may have written.
 */
#include "helpers.h"

#include "reply.h"

TEST(properties_come_back_as_they_were)
{
	struct reply_answer head = { .magic = REPLY_ANSWER, .id = 7, .entry_gen = 9 }, got;
	struct shmq_msg msg = { .data = "d", .len = 1, .properties = "abc", .properties_len = 3 };
	struct reply_scratch scratch = { 0 };
	struct shmq_msg out;

	CHECK_OK(shmq__reply_put(&scratch, &head, sizeof(head), &msg, &out));
	CHECK_EQ(out.properties_len, sizeof(head) + 3);
	CHECK_MEM(out.data, "d", 1);
	CHECK(shmq__reply_take(&out, &got, sizeof(got)));
	CHECK_MEM(&got, &head, sizeof(head));
	CHECK_EQ(out.properties_len, 3);
	CHECK_MEM(out.properties, "abc", 3);
	free(scratch.mem);
}

TEST(without_properties_there_are_none_afterwards)
{
	struct reply_answer head = { .magic = REPLY_TAKEN }, got;
	struct reply_scratch scratch = { 0 };
	struct shmq_msg msg = { 0 }, out;

	CHECK_OK(shmq__reply_put(&scratch, &head, sizeof(head), &msg, &out));
	CHECK(shmq__reply_take(&out, &got, sizeof(got)));
	CHECK(!out.properties && !out.properties_len);
	free(scratch.mem);
}

TEST(what_is_shorter_is_left_alone)
{
	struct shmq_msg msg = { .properties = "short", .properties_len = 5 };
	struct reply_request head;

	CHECK(!shmq__reply_take(&msg, &head, sizeof(head)));
	CHECK_EQ(msg.properties_len, 5);
	CHECK_MEM(msg.properties, "short", 5);
}

TEST(more_than_properties_can_be_is_refused)
{
	static char many[65535];
	struct shmq_msg msg = { .properties = many, .properties_len = sizeof(many) }, out;
	struct reply_scratch scratch = { 0 };
	struct reply_answer head = { 0 };

	CHECK_ERROR(shmq__reply_put(&scratch, &head, sizeof(head), &msg, &out), SHMQ_EOPTION);
	msg.properties_len -= sizeof(head);
	CHECK_OK(shmq__reply_put(&scratch, &head, sizeof(head), &msg, &out));
	CHECK_EQ(out.properties_len, sizeof(many));
	free(scratch.mem);
}
