// Command kontiki is the whole of Kontiki: node, client, project server and demo in one binary.
package main

import (
	"os"

	"kontiki/cmd"
)

func main() { os.Exit(cmd.Main()) }
