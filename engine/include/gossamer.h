/* The C interface of gossamer's engine: a compiled network from a file, run on float32 images.
 *
 * Nothing here prints, aborts or throws. Functions return 0 or a code that gossamer_error_text explains. A model is
 * read-only and may serve any number of sessions; only one caller may use a session at a time.
 */
#ifndef GOSSAMER_H
#define GOSSAMER_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define GOSSAMER_API __attribute__((visibility("default")))
#else
#define GOSSAMER_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct gossamer_model gossamer_model;
typedef struct gossamer_session gossamer_session;

enum gossamer_error {
  GOSSAMER_OK = 0,
  GOSSAMER_ARGUMENT = 1,   /* a null pointer, or a number outside its range */
  GOSSAMER_MEMORY = 2,     /* memory is exhausted */
  GOSSAMER_FILE = 3,       /* the file cannot be opened or read, or is empty */
  GOSSAMER_MAGIC = 4,      /* N1: not a compiled network */
  GOSSAMER_VERSION = 5,    /* N2: a version that this engine does not support */
  GOSSAMER_SIZE = 6,       /* N3: shorter or longer than it says, or above 4 GiB */
  GOSSAMER_CHECKSUM = 7,   /* N4: corrupt */
  GOSSAMER_TABLES = 8,     /* N5: a table or the weights are outside the file or not aligned */
  GOSSAMER_VALUE = 9,      /* N6: a value with sides out of range, or a slice outside its parent */
  GOSSAMER_OPERATION = 10, /* N7: an operation of unknown kind or activation, or attributes out of range */
  GOSSAMER_REFERENCE = 11, /* N8: an operation reads what no earlier one wrote, or writes twice */
  GOSSAMER_SHAPE = 12,     /* N9: inconsistent shapes */
  GOSSAMER_WEIGHTS = 13,   /* N10: weights outside their table */
  GOSSAMER_OUTPUT = 14,    /* N11: an output without a name, or that its pieces do not fill */
  GOSSAMER_PRECISION =
      15, /* N12: weights of a type that cannot be multiplied with their map, int8 ones of an invalid scale, or too long an int32 sum */
  GOSSAMER_ISA = 16,   /* GOSSAMER_ISA asks for an instruction set that this machine lacks */
  GOSSAMER_NAN = 17,   /* the input holds NaN, which a network that computes in uint8 cannot represent */
  GOSSAMER_INPUT = 18, /* N13: an input without a name, or of other sides than its value */
  GOSSAMER_INPUTS = 19 /* gossamer_describe of a network with several inputs: see gossamer_input */
};

/* A line of text for a code; never null. */
GOSSAMER_API const char *gossamer_error_text(int code);

/* Read a compiled file into memory: later changes of the file change nothing. */
GOSSAMER_API int gossamer_open(const char *path, gossamer_model **model);

/* Height, width and channels of the only input, fixed when the network was compiled; how many values all outputs of an image
 * have together. GOSSAMER_INPUTS where there are several inputs. */
GOSSAMER_API int gossamer_describe(const gossamer_model *model, int32_t input[3], int64_t *outputs);

/* How many inputs there are. */
GOSSAMER_API int gossamer_input_count(const gossamer_model *model, int32_t *count);

/* An input: its name ("" in a file of one input, which does not keep it), valid as long as the model; its axes without the
 * batch and their sizes; where among an image's values it begins. */
GOSSAMER_API int gossamer_input(const gossamer_model *model, int32_t index, const char **name, int32_t *rank,
                                int32_t sides[4], int64_t *first);

/* How many outputs there are. */
GOSSAMER_API int gossamer_output_count(const gossamer_model *model, int32_t *count);

/* An output: its name, valid as long as the model; its axes without the batch and their sizes; where among an
 * image's values it begins. */
GOSSAMER_API int gossamer_output(const gossamer_model *model, int32_t index, const char **name, int32_t *rank,
                                 int32_t sides[4], int64_t *first);

/* The model metadata: UTF-8 JSON, not ended by 0, valid as long as the model. */
GOSSAMER_API int gossamer_metadata(const gossamer_model *model, const char **text, size_t *size);

/* The file as it was read, valid as long as the model: header, values, operations, outputs and pieces. Weights that were packed
 * are zeros in it. */
GOSSAMER_API int gossamer_records(const gossamer_model *model, const void **data, size_t *size);

/* Scratch memory and `threads` - 1 threads; the model must outlive it. A child of a fork starts threads of its own at its
 * first run. */
GOSSAMER_API int gossamer_session_open(const gossamer_model *model, int threads, gossamer_session **session);

/* Name of the instruction set that the session uses: reference, portable, avx2, avx512, avx512_vnni, avx512_bf16, amx, neon,
 * neon_dotprod. */
GOSSAMER_API const char *gossamer_session_isa(const gossamer_session *session);

/* `images` images, float32 (images, channels, height, width) -> (images, outputs): the outputs of each image are
 * concatenated, and so are its inputs where there are several. Allocates nothing. Outputs are the same to the bit for any number of threads and any batching. A NaN of the
 * input stays NaN in all outputs that depend on it. */
GOSSAMER_API int gossamer_run(gossamer_session *session, const float *input, int64_t images, float *output);

/* As gossamer_run, and the nanoseconds that each operation of the file took are added to `nanoseconds`. */
GOSSAMER_API int gossamer_profile(gossamer_session *session, const float *input, int64_t images, float *output,
                                  int64_t *nanoseconds);

/* Height and width of the Winograd input tiles by which an operation of the file is computed; 0 and 0 for direct
 * convolution. */
GOSSAMER_API int gossamer_winograd_tile(const gossamer_model *model, int32_t operation, int32_t tile[2]);

/* The names of the kernels that run an operation of the file, or for operation -1 of all that the instruction set has, each ended
 * by a line feed, all by 0; GOSSAMER_ARGUMENT where `size` bytes are too few. 4096 are enough. */
GOSSAMER_API int gossamer_kernels(const gossamer_model *model, int32_t operation, char *names, size_t size);

GOSSAMER_API void gossamer_session_close(gossamer_session *session);
GOSSAMER_API void gossamer_close(gossamer_model *model);

#ifdef __cplusplus
}
#endif
#endif
