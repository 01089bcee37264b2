"""One file a recorder's format; each turns bytes into recordings or rejections."""
