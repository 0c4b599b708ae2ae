// Connects with pgx.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
)

func main() {
	fmt.Println("pgx 4 (Debian 12)")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fields := strings.Split(lines.Text(), "\t")
		port, err := connect(fields)
		if err == nil {
			fmt.Printf("port %s\t\t\n", port)
			continue
		}
		var server *pgconn.PgError
		code := ""
		if errors.As(err, &server) {
			code = server.Code
		}
		fmt.Printf("%T\t%s\t%s\n", err, code, strings.Join(strings.Fields(err.Error()), " "))
	}
}

func connect(fields []string) (port string, err error) {
	var hosts, ports []string
	for _, one := range strings.Split(fields[0], ",") {
		host, number, _ := strings.Cut(one, ":")
		hosts, ports = append(hosts, host), append(ports, number)
	}
	info := fmt.Sprintf("host=%s port=%s user=driver dbname=postgres sslmode=%s",
		strings.Join(hosts, ","), strings.Join(ports, ","), fields[1])
	if strings.HasPrefix(fields[1], "verify") {
		info += " sslrootcert=" + fields[3]
	}
	connection, err := pgx.Connect(context.Background(), info)
	if err != nil {
		return "", err
	}
	defer connection.Close(context.Background())
	err = connection.QueryRow(context.Background(), "show port").Scan(&port)
	return port, err
}
