/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the task core share among themselves. */
#ifndef SENTRY_TASK_INTERNAL_H
#define SENTRY_TASK_INTERNAL_H

#include <sys/wait.h>

#include "sentry/task.h"

/* As task_publish, tasklist held. */
int task_publish_locked(struct task *t, struct thread_group *parent) __must_check;
/* Takes it back: the leader of a new group without a parent. In the same hold of tasklist. */
void task_unpublish_locked(struct task *t);
/* Runs on the task's own host thread and consumes its reference. */
void task_exit(struct task *t);
/*
 * Ends a published task whose host thread could not be started, without a word to its parent;
 * consumes its reference.
 */
void task_never_ran(struct task *t);
/* A vfork parent may go on. */
void task_vfork_release(struct task *t);
/*
 * On the way to user code, while there is a t->vfork_child: waits until that has let go of its
 * memory, or @t is killed. False: @t is to look around first, it is going to be frozen.
 */
bool task_vfork_wait(struct task *t) __must_check;
/* After everyone else is gone: @t becomes the leader, with the leader's ID. */
void task_take_leadership(struct task *t);
/*
 * Takes a zombie group out of the tree. Its leader goes on @dead, to be put by tasks_put_dead once
 * tasklist has been released. tasklist held.
 */
void thread_group_release_locked(struct thread_group *tg, struct list_head *dead);
void tasks_put_dead(struct list_head *dead);

#endif
