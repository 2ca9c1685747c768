package main

// The image is FROM scratch and has no certificate authorities. These are Mozilla's. They apply only where the system
// has none; a system's own authorities take precedence, as in any program.
import _ "golang.org/x/crypto/x509roots/fallback"
