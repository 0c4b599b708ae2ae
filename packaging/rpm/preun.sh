if [ "$1" -eq 0 ] && [ -x /usr/bin/systemctl ]; then
    systemctl --no-reload disable --now pgnorth.socket pgnorth.service || :
fi
