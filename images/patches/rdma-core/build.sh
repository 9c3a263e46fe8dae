#!/bin/sh
# Builds RXE's provider, and nothing else of rdma-core, in the toolroot: from the archive $1, with the patches in $2, into
# the library $3. Everything that cmake would find out about this one file is known, so cmake is not needed:
#   * headers that libibverbs does not install come from the source, under the names they are included by;
#   * kernel-abi/ is made of the kernel's headers by rdma-core's own script;
#   * config.h says what cmake says on this distribution, as far as the provider's headers look at it.
# libibverbs is the distribution's, so the version of the source has to be that of the package.
set -eu
archive=$1 patches=$2 library=$3
source=$(mktemp -d)
include=$source/lab-include
trap 'rm -rf "$source"' EXIT

tar -C "$source" -xzf "$archive" --strip-components=1 --no-same-owner
for patch in "$patches"/*.patch; do
    patch -d "$source" -p1 --fuzz=0 < "$patch"
done

mkdir -p "$include/infiniband" "$include/kernel-abi"
cat > "$include/config.h" <<END
#define HAVE_STATEMENT_EXPR 1
#define HAVE_BUILTIN_TYPES_COMPATIBLE_P 1
#define HAVE_TYPEOF 1
#define HAVE_FUNC_ATTRIBUTE_ALWAYS_INLINE 1
#define HAVE_FUNC_ATTRIBUTE_SYMVER 1
#define HAVE_FULL_SYMBOL_VERSIONS 1
#define SIZEOF_LONG 8
#define IBVERBS_PABI_VERSION 34
#define VERBS_IOCTL_ONLY 0
#define VERBS_WRITE_ONLY 0
END
for header in cmd_ioctl.h cmd_write.h driver.h kern-abi.h marshall.h; do
    ln -s "$source/libibverbs/$header" "$include/infiniband/"
done
for header in ib_user_verbs.h rdma_user_rxe.h; do
    (cd "$source/kernel-headers" &&
        python3 ../buildlib/make_abi_structs.py "rdma/$header" "$include/kernel-abi/$header")
done

gcc -shared -fPIC -O2 -g0 -std=gnu11 -Wall -Werror -D_GNU_SOURCE -DNDEBUG -ffile-prefix-map="$source=rdma-core" \
    -fstack-protector-strong -D_FORTIFY_SOURCE=2 \
    -I"$include" -I"$source" -I"$source/kernel-headers" -I"$source/providers/rxe" \
    -Wl,--version-script="$source/buildlib/provider.map" -Wl,--no-undefined -Wl,-z,relro,-z,now -Wl,--build-id=none -s \
    -o "$library" "$source/providers/rxe/rxe.c" -libverbs
