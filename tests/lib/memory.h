/* SPDX-License-Identifier: MIT
 *
 * memory: what the kernel and the allocator give to a test, on purpose.
 *
 * A test that links this allocates and maps through here.
 *
 * Scarcity: from scarce_begin(k) on, the k-th allocation or map of this
 * thread fails, once.  In a loop over k until scarce_end() says that there
 * were not as many, a call meets each shortage that it can meet.  While
 * scarce_maps() is on, no file can be mapped by any thread.
 *
 * One address: after memory_is_one(), under ThreadSanitizer, which knows memory
 * by its address, a file that is mapped again is found where it is already,
 * writable, so that what one handle stores and another loads is seen to be the
 * same.  Elsewhere every map is what it was asked to be.
 *
 * Guards: after guard_maps(), every map stands between two pages that nobody
 * may touch.  Called before the first of them, once and for all.
 */
#ifndef TEST_MEMORY_H
#define TEST_MEMORY_H

void scarce_begin(unsigned k);
int scarce_end(void);
void scarce_maps(int on);
void memory_is_one(void);
void guard_maps(void);

#endif
