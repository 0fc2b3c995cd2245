/* A libnrt for tests: the functions that ltx_run.neuron.nrt declares, on memory of this process.

   `declarations.h` is generated from those declarations, so that prototypes and structures can't differ from them.

   What it does is told by the environment:
     MOCK_NRT_LOG      file that gets a line per call, and at nrt_close a line with what was not freed
     MOCK_NRT_FAULTS   "FUNCTION:NTH:CODE ...": what the nth call (from 1) returns; CODE "hang" never returns
     MOCK_NRT_FAMILY   instance family (default 5, trn2)
     MOCK_NRT_VERSION  major.minor of the runtime (default 2.31)
     MOCK_NRT_HBM      bytes of memory of each core (default 24 GiB)
     MOCK_NRT_MEMORY   folder for the memory of the cores (default /dev/shm)
     MOCK_NRT_DEVICE   socket of a process that executes NEFFs which hold an HLO module, see mock_device.py

   A NEFF's payload is text, a line "NAME USAGE SIZE DTYPE" for each tensor after a line "MOCK", or an HLO module.
   Of a text, each f32 result is the sum of all f32 inputs of its core, plus the core's number. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "declarations.h"

enum { HEADER = 1024, LNC = 552, MAJOR = 24, CORES = 64, CODE = 1 << 20 };

typedef struct { char name[256]; int usage; size_t size; int dtype; } tensor_spec;
typedef struct { int core; size_t size; char path[256]; unsigned char *data; } tensor;
typedef struct { size_t count; struct { char name[256]; tensor *tensor; } items[4096]; } set;
typedef struct { int core, rank, world; size_t count; tensor_spec *specs; char path[256]; } model;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;
static int state, tensors, sets, models, waiting, generation;
static size_t used[CORES];
static struct { model *model; set *inputs, *outputs; } running[CORES];

static const char *option(const char *name, const char *otherwise) {
  const char *value = getenv(name);
  return value ? value : otherwise;
}

static void record(const char *format, ...) {
  const char *path = getenv("MOCK_NRT_LOG");
  if (!path) return;
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line, sizeof line - 1, format, arguments);
  va_end(arguments);
  line[length++] = '\n';
  int file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
  if (file < 0 || write(file, line, length) != length) abort();
  close(file);
}

/* The code that the environment wants from this call; -1 to do the work. */
static int fault(const char *function) {
  static struct { char name[64]; int calls; } counted[32];
  int calls = 0, code = -1, nth;
  char name[64], what[16], text[512];
  pthread_mutex_lock(&lock);
  for (int i = 0; i < 32; i++) {
    if (!counted[i].name[0]) snprintf(counted[i].name, sizeof counted[i].name, "%s", function);
    if (!strcmp(counted[i].name, function)) { calls = ++counted[i].calls; break; }
  }
  pthread_mutex_unlock(&lock);
  snprintf(text, sizeof text, "%s", option("MOCK_NRT_FAULTS", ""));
  for (char *rest = text, *each; (each = strsep(&rest, " "));)
    if (sscanf(each, "%63[^:]:%d:%15s", name, &nth, what) == 3 && nth == calls && !strcmp(name, function)) {
      if (!strcmp(what, "hang")) for (;;) pause();
      code = atoi(what);
    }
  return code;
}

#define ENTER(...)                                    \
  do {                                                \
    record(__VA_ARGS__);                              \
    int code_ = fault(__func__);                      \
    if (code_ >= 0) return code_;                     \
    if (state != 1) return state ? 14 : 13;           \
  } while (0)

int nrt_get_version(struct Version *version, unsigned long size) {
  record("%s", __func__);
  memset(version, 0, size);
  unsigned long major, minor;
  if (sscanf(option("MOCK_NRT_VERSION", "2.31"), "%lu.%lu", &major, &minor) != 2) abort();
  version->major = major;
  version->minor = minor;
  return 0;
}

int nrt_init(int framework, char *version, char *layer) {
  record("%s framework=%d", __func__, framework);
  int code = fault(__func__);
  if (code >= 0) return code;
  if (state) return 1;
  state = 1;
  return 0;
}

void nrt_close(void) {
  record("%s", __func__);
  record("left tensors=%d sets=%d models=%d", tensors, sets, models);
  state = 2;
}

int nrt_get_instance_info(struct Instance *instance, unsigned long size) {
  ENTER("%s", __func__);
  memset(instance, 0, size);
  instance->family = atoi(option("MOCK_NRT_FAMILY", "5"));
  return 0;
}

int nrt_get_visible_vnc_count(unsigned int *count) {
  ENTER("%s", __func__);
  int first, last;
  const char *range = option("NEURON_RT_VISIBLE_CORES", "0-3");
  *count = sscanf(range, "%d-%d", &first, &last) == 2 ? last - first + 1 : 1;
  return 0;
}

int nrt_get_vnc_memory_stats(unsigned int core, struct MemoryStats *stats, unsigned long size, unsigned long *written) {
  ENTER("%s", __func__);
  stats->used = used[core];
  stats->limit = strtoul(option("MOCK_NRT_HBM", "25769803776"), NULL, 10);
  *written = size;
  return 0;
}

static int take(int core, size_t size) {
  pthread_mutex_lock(&lock);
  int fits = used[core] + size <= strtoul(option("MOCK_NRT_HBM", "25769803776"), NULL, 10);
  if (fits) used[core] += size;
  pthread_mutex_unlock(&lock);
  return fits;
}

/* Memory in a file, so that the process that executes can map it as well. */
static unsigned char *shared(size_t size, char path[256]) {
  snprintf(path, 256, "%s/memory-XXXXXX", option("MOCK_NRT_MEMORY", "/dev/shm"));
  int file = mkstemp(path);
  if (file < 0 || ftruncate(file, size ? size : 1)) abort();
  void *data = mmap(NULL, size ? size : 1, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (data == MAP_FAILED) abort();
  close(file);
  return data;
}

/* Wait for all ranks; 5 if they don't all come. The last one to come does the work. */
static int together(int world, int (*work)(void)) {
  static int result;
  int code = 0;
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += 1;
  pthread_mutex_lock(&lock);
  int mine = generation;
  if (++waiting == world) {
    result = work ? work() : 0;
    waiting = 0;
    generation++;
    pthread_cond_broadcast(&arrived);
  }
  while (mine == generation && !code)
    if (pthread_cond_timedwait(&arrived, &lock, &until) && mine == generation) { code = 5; waiting--; }
  if (!code) code = result;
  pthread_mutex_unlock(&lock);
  return code;
}

static FILE *device(void) {
  static FILE *stream;
  if (stream) return stream;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s", option("MOCK_NRT_DEVICE", ""));
  int end = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(end, (struct sockaddr *)&address, sizeof address)) { perror("MOCK_NRT_DEVICE"); abort(); }
  return stream = fdopen(end, "r+");
}

static int parse(model *made, FILE *lines) {
  char line[512];
  while (fgets(line, sizeof line, lines) && line[0] != '.') {
    tensor_spec spec;
    if (sscanf(line, "%255s %d %zu %d", spec.name, &spec.usage, &spec.size, &spec.dtype) != 4) return 2;
    made->specs = realloc(made->specs, (made->count + 1) * sizeof spec);
    made->specs[made->count++] = spec;
  }
  return 0;
}

static int describe(model *made, const unsigned char *neff, size_t size) {
  const char *payload = (const char *)neff + HEADER;
  if (!strncmp(payload, "MOCK\n", 5)) {
    FILE *lines = fmemopen((void *)(payload + 5), size - HEADER - 5, "r");
    int code = parse(made, lines);
    fclose(lines);
    return code;
  }
  unsigned char *copy = shared(size, made->path);
  memcpy(copy, neff, size);
  munmap(copy, size);
  pthread_mutex_lock(&lock);
  FILE *stream = device();
  fprintf(stream, "load %s\n", made->path);
  fflush(stream);
  int code = parse(made, stream);
  pthread_mutex_unlock(&lock);
  return code;
}

static int load(void *bytes, size_t size, int core, int rank, int world, void **result) {
  const unsigned char *neff = bytes;
  uint32_t lnc;
  uint64_t major;
  memcpy(&lnc, neff + LNC, 4);
  memcpy(&major, neff + MAJOR, 8);
  if (major > 2) return 10;
  if ((int)lnc != atoi(option("NEURON_LOGICAL_NC_CONFIG", "2"))) return 1;
  if (!take(core, CODE)) return 4;
  model *made = calloc(1, sizeof *made);
  *made = (model){.core = core, .rank = rank, .world = world};
  int code = describe(made, neff, size);
  if (!code) code = together(world, NULL);
  if (code) {
    used[core] -= CODE;
    return code;
  }
  __sync_fetch_and_add(&models, 1);
  *result = made;
  return 0;
}

int nrt_load(void *bytes, unsigned long size, int core, int count, void **result) {
  ENTER("%s core=%d count=%d", __func__, core, count);
  return load(bytes, size, core, 0, 1, result);
}

int nrt_load_collectives(void *bytes, unsigned long size, int core, int count, unsigned int rank, unsigned int world,
                         void **result) {
  ENTER("%s core=%d count=%d rank=%u world=%u", __func__, core, count, rank, world);
  return load(bytes, size, core, rank, world, result);
}

int nrt_unload(void *pointer) {
  model *gone = pointer;
  ENTER("%s core=%d", __func__, gone->core);
  used[gone->core] -= CODE;
  if (gone->path[0]) unlink(gone->path);
  free(gone->specs);
  free(gone);
  __sync_fetch_and_sub(&models, 1);
  return 0;
}

int nrt_get_model_tensor_info(void *pointer, struct TensorInfos **result) {
  model *asked = pointer;
  ENTER("%s core=%d", __func__, asked->core);
  *result = calloc(1, sizeof(struct TensorInfos) + asked->count * sizeof(struct TensorInfo));
  (*result)->count = asked->count;
  struct TensorInfo *infos = (struct TensorInfo *)((char *)*result + offsetof(struct TensorInfos, first));
  for (size_t i = 0; i < asked->count; i++) {
    strcpy(infos[i].name, asked->specs[i].name);
    infos[i].usage = asked->specs[i].usage;
    infos[i].size = asked->specs[i].size;
    infos[i].dtype = asked->specs[i].dtype;
  }
  return 0;
}

int nrt_free_model_tensor_info(struct TensorInfos *infos) {
  ENTER("%s", __func__);
  free(infos);
  return 0;
}

int nrt_tensor_allocate(int placement, int core, unsigned long size, char *name, void **result) {
  ENTER("%s placement=%d core=%d size=%zu name=%s", __func__, placement, core, size, name);
  if (!take(core, size)) return 4;
  tensor *made = calloc(1, sizeof *made);
  made->core = core;
  made->size = size;
  made->data = shared(size, made->path);
  __sync_fetch_and_add(&tensors, 1);
  *result = made;
  return 0;
}

void nrt_tensor_free(void **pointer) {
  tensor *gone = *pointer;
  record("%s core=%d size=%zu", __func__, gone->core, gone->size);
  used[gone->core] -= gone->size;
  munmap(gone->data, gone->size ? gone->size : 1);
  unlink(gone->path);
  free(gone);
  *pointer = NULL;
  __sync_fetch_and_sub(&tensors, 1);
}

int nrt_tensor_write(void *pointer, void *source, unsigned long offset, unsigned long size) {
  tensor *target = pointer;
  ENTER("%s core=%d size=%zu", __func__, target->core, size);
  if (offset + size > target->size) return 2;
  memcpy(target->data + offset, source, size);
  return 0;
}

int nrt_tensor_read(void *pointer, void *target, unsigned long offset, unsigned long size) {
  tensor *source = pointer;
  ENTER("%s core=%d size=%zu", __func__, source->core, size);
  if (offset + size > source->size) return 2;
  memcpy(target, source->data + offset, size);
  return 0;
}

int nrt_allocate_tensor_set(void **result) {
  ENTER("%s", __func__);
  *result = calloc(1, sizeof(set));
  __sync_fetch_and_add(&sets, 1);
  return 0;
}

int nrt_add_tensor_to_tensor_set(void *pointer, char *name, void *added) {
  set *target = pointer;
  int code = fault(__func__);
  if (code >= 0) return code;
  snprintf(target->items[target->count].name, 256, "%s", name);
  target->items[target->count++].tensor = added;
  return 0;
}

void nrt_destroy_tensor_set(void **pointer) {
  record("%s", __func__);
  free(*pointer);
  *pointer = NULL;
  __sync_fetch_and_sub(&sets, 1);
}

static tensor *named(set *where, const tensor_spec *spec) {
  for (size_t i = 0; i < where->count; i++)
    if (!strcmp(where->items[i].name, spec->name))
      return where->items[i].tensor->size == spec->size ? where->items[i].tensor : NULL;
  return NULL;
}

static void sum(int rank) {
  float total = running[rank].model->rank;
  model *what = running[rank].model;
  for (int usage = 0; usage < 2; usage++)
    for (size_t i = 0; i < what->count; i++) {
      if (what->specs[i].usage != usage || what->specs[i].dtype != 10) continue;
      tensor *each = named(usage ? running[rank].outputs : running[rank].inputs, &what->specs[i]);
      float *values = (float *)each->data;
      for (size_t j = 0; j < each->size / sizeof(float); j++)
        if (usage) values[j] = total; else total += values[j];
    }
}

static int execute_all(void) {
  model *first = running[0].model;
  if (!first->path[0]) {
    for (int rank = 0; rank < first->world; rank++) sum(rank);
    return 0;
  }
  FILE *stream = device();
  fprintf(stream, "run %s\n", first->path);
  for (int rank = 0; rank < first->world; rank++)
    for (size_t i = 0; i < first->count; i++) {
      const tensor_spec *spec = &first->specs[i];
      tensor *each = named(spec->usage ? running[rank].outputs : running[rank].inputs, spec);
      fprintf(stream, "%d %s %s\n", rank, spec->name, each->path);
    }
  fprintf(stream, ".\n");
  fflush(stream);
  char answer[16];
  return fgets(answer, sizeof answer, stream) ? atoi(answer) : 1;
}

int nrt_execute(void *pointer, void *inputs, void *outputs) {
  model *what = pointer;
  ENTER("%s core=%d", __func__, what->core);
  for (size_t i = 0; i < what->count; i++)
    if (!named(what->specs[i].usage ? outputs : inputs, &what->specs[i])) return 1002;
  pthread_mutex_lock(&lock);
  running[what->rank].model = what;
  running[what->rank].inputs = inputs;
  running[what->rank].outputs = outputs;
  pthread_mutex_unlock(&lock);
  return together(what->world, execute_all);
}
